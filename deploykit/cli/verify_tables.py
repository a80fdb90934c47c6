"""The verdict on an exported file as tables: one for each output, then what was found and what to do next."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType

    from deploykit.verification.records import ArtifactVerification, OutputVerification, RuntimeVerification

_LAYERS_SHOWN = 12


def of_verification(one: ArtifactVerification) -> Iterator[RenderableType]:
    """Yield what was verified, a table for each output, notes, the layers, the verdict and the next step."""
    from rich.text import Text

    yield Text(_subject(one))
    for run in one.runtimes:
        for output in run.outputs:
            yield _table(one, run, output)
    for pair in one.between:
        comparison = pair.comparison
        yield Text(
            f"{pair.runtime} against {pair.other}, {comparison.output}: max abs {comparison.max_abs_error:.2e}, "
            f"relative L2 {comparison.relative_l2:.2e}, {comparison.snr_db:.1f} dB"
        )
    yield Text(f"preprocessing: {one.probe.verdict}: {one.probe.detail}")
    for note in one.notes:
        yield Text(f"note: {note}")
    if one.layers is not None:
        from deploykit.cli.attribution_table import of_attribution

        yield from of_attribution(one.layers, _LAYERS_SHOWN)
    yield Text(_verdict(one))
    yield Text(f"next: {_next_step(one)}")


def _subject(one: ArtifactVerification) -> str:
    lines = [
        f"{one.path.as_posix()}: {one.target}, {one.precision} ({one.precision_source}), recipe {one.recipe}",
        f"  against the {one.reference.kind} {one.reference.path.as_posix()} ({one.reference.computed_by})",
    ]
    for item in one.inputs:
        order = f", {item.color_order}" if item.color_order else ""
        same = "" if item.input == item.file_input else f" (in the file {item.file_input})"
        kind = "pixels 0 to 255" if item.kind == "image" else "the network's tensor"
        lines.append(f"  input {item.input}{same}: {kind}, {item.dtype} {list(item.shape)}, {item.layout}{order}")
    lines.append(f"  on {', '.join(one.samples)}")
    return "\n".join(lines)


def _table(one: ArtifactVerification, run: RuntimeVerification, output: OutputVerification) -> RenderableType:
    from rich.markup import escape
    from rich.table import Table

    comparison, bound = output.comparison, output.comparison.tolerance
    same = "" if output.output == output.file_output else f" (in the file {output.file_output})"
    form = {"network": "", "softmax": ", probabilities", "mask": ", a mask"}.get(output.form, ", one probability")
    verdict = "pass" if output.passed else "FAIL"
    title = f"{output.output}{same}{form}, {output.layout}, on {run.runtime}: {verdict}"
    table = Table(
        title=escape(title),
        title_justify="left",
        caption=escape(f"tolerance: {bound.reason}"),
        caption_justify="left",
    )
    table.add_column("figure")
    table.add_column("measured", justify="right")
    table.add_column("bound", justify="right")
    rows = (
        ("max absolute error", f"{comparison.max_abs_error:.3e}", _most(bound.max_abs_error)),
        ("median absolute error", f"{comparison.median_abs_error:.3e}", "-"),
        ("relative L2", f"{comparison.relative_l2:.3e}", _most(bound.relative_l2)),
        ("SNR", f"{comparison.snr_db:.1f} dB", "-"),
        ("cosine", _figure(output.cosine, ".9f"), "-"),
        (
            "mask agreement",
            _figure(comparison.mask_agreement, ".4%"),
            "-" if bound.mask_agreement is None else f">= {bound.mask_agreement:.4%}",
        ),
        (
            "mask pixels wrong beyond the margin",
            _figure(comparison.wrong_pixels, "d"),
            "-" if bound.wrong_pixels is None else f"<= {bound.wrong_pixels}",
        ),
        ("mIoU with the reference's masks", _figure(output.miou, ".6f"), "-"),
        ("mIoU with the true masks", _figure(output.truth_miou, ".6f"), "-"),
        ("  the reference's own", _figure(output.reference_truth_miou, ".6f"), "-"),
    )
    for row in rows:
        if row[1] != "-":
            table.add_row(*row)
    if output.worst is not None:
        worst = output.worst
        axes = ("channel", "y", "x") if len(worst.place) == 3 else ("",) * len(worst.place)
        place = ", ".join(f"{axis} {index}".strip() for axis, index in zip(axes, worst.place, strict=True))
        table.add_row("worst value at", escape(f"{worst.sample}: {place}"), "-")
        table.add_row("  there", f"{worst.found:.9g} instead of {worst.expected:.9g}", "-")
    for lint in output.lints:
        table.add_row(f"lint: {lint.rule}", escape(lint.detail), "none" if lint.fails else "-")
    return table


def _most(bound: float | None) -> str:
    return "-" if bound is None else f"<= {bound:.3g}"


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _verdict(one: ArtifactVerification) -> str:
    if one.passed:
        return f"{one.path.name}: equivalent within tolerance"
    return "\n".join([f"{one.path.name}: FAILED", *(f"  {finding}" for finding in one.findings)])


def _next_step(one: ArtifactVerification) -> str:
    path = one.path.as_posix()
    if one.passed:
        return f"deploykit evaluate {path}" if one.manifest and not one.changed else f"deploykit inspect {path}"
    shapes = any("instead of" in text and "shape" in text for text in one.findings)
    if one.changed:
        return "export again, or restore the files that changed"
    if one.probe.explanations:
        return "correct the preprocessing that is built into the file, or the recipe that it was exported with"
    if shapes:
        return "give the recipe and the checkpoint that the file was made from, with --recipe and --checkpoint"
    if any("preprocesses by itself" in note for note in one.notes):
        return "give the file what it takes, with --input-kind"
    if one.layers is None and one.reference.kind == "checkpoint":
        return "name the layer where the error arises: the same command with --layers"
    accused = [row.module for row in one.layers.rows if row.verdict == "accused"] if one.layers else []
    if "preprocessing" in accused:
        return "correct the preprocessing that is built into the file, or the recipe that it was exported with"
    if one.layers and one.layers.matched and not accused:
        return "no layer is wrong, rounding adds up: state what you accept in the recipe's tolerances, with the reason"
    return "export again, or compare with the checkpoint that the file was made from"

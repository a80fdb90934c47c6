"""``deploykit verify-reparam``: is the folded and merged network the network that was trained?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploykit.cli.options import (
    CheckpointKeyOption,
    CheckpointOption,
    ImagesOption,
    JsonOption,
    RecipeArgument,
    VerboseOption,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.console import RenderableType
    from rich.table import Table

    from deploykit.certificate.records import Certificate
    from deploykit.network import LoadedNetwork
    from deploykit.records import Verification

SHOWN = 12


def verify_reparam(
    recipe: RecipeArgument = None,
    *,
    checkpoint: CheckpointOption = None,
    checkpoint_key: CheckpointKeyOption = None,
    images: ImagesOption = None,
    self_test: Annotated[
        bool, typer.Option("--self-test", help="Damage each fold in turn; every damage must be caught.")
    ] = False,
    certificate: Annotated[
        Path | None,
        typer.Option(
            "--certificate",
            metavar="FILE",
            help="Write why each fold and merge is exact, and how far it may round.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Compare the training form with the folded and merged graph, in float64 and in float32.

    Without RECIPE the one named in ./deploykit.toml is taken, else the one that --checkpoint belongs to, else every
    bundled one that has weights. Exit code 1 if a tolerance or an expected count is missed.

    A certificate holds hashes of the checkpoint and of every folded weight, so that verify --certificate finds any
    change. It is not signed: it detects corruption and mistakes, and does not stop an adversary.
    """
    from deploykit.api import load
    from deploykit.api import verify_reparam as verify
    from deploykit.cli.certificate_tables import of_certificate, summary_of_certificate
    from deploykit.cli.console import print_json, progress, stderr_console, stdout_console
    from deploykit.images.preprocess import image_paths
    from deploykit.records import to_json, versioned

    del verbose
    photos = image_paths(images) if images else ()
    wanted = _wanted(recipe, checkpoint)
    _require_one(wanted, certificate)
    results, made = [], None
    with progress("verify-reparam") as say:
        for name in wanted:
            say(f"{name or checkpoint}: capturing, simplifying and comparing")
            network = load(name, checkpoint=checkpoint, checkpoint_key=checkpoint_key)
            verification = verify(
                network,
                images=photos,
                self_test=self_test,
                report=_reporter(say, str(name or checkpoint)),
            )
            results.append(verification)
            if certificate is not None and verification.passed:
                say(f"{name or checkpoint}: certifying each block")
                made = _certify(network, photos, certificate)
    if as_json:
        body = [{**to_json(one), "passed": one.passed} for one in results]
        if made is not None:
            body[0]["certificate"] = summary_of_certificate(made)
        print_json(versioned("verify-reparam", body))
    else:
        console = stdout_console()
        for one in results:
            for part in _of_verification(one):
                console.print(part, markup=False)
        if made is not None:
            for part in of_certificate(made):
                console.print(part, markup=False)
    for one in results:
        for note in one.notes:
            stderr_console().print(f"note: {one.recipe}: {note}", markup=False)
    if not all(one.passed for one in results) or (made is not None and not made.passed):
        raise typer.Exit(1)


def _wanted(recipe: str | None, checkpoint: Path | None) -> Sequence[str | Path | None]:
    """Return the recipes to verify; None stands for the one that the checkpoint belongs to."""
    from deploykit.cli.console import stderr_console
    from deploykit.recipe import bundled_recipes, load_recipe, project_recipe

    named = recipe or project_recipe(Path.cwd())
    if named is not None or checkpoint is not None:
        return [named]
    trained = {name: load_recipe(name).checkpoint_path() is not None for name in bundled_recipes()}
    without = ", ".join(name for name, has_weights in trained.items() if not has_weights)
    if without:
        stderr_console().print(f"note: no weights are bundled for {without}: give --checkpoint", markup=False)
    return [name for name, has_weights in trained.items() if has_weights]


def _require_one(wanted: Sequence[object], certificate: Path | None) -> None:
    """Raise, before any work, where a certificate is asked for that cannot be made or written."""
    from deploykit.certificate.file import require_writable
    from deploykit.errors import UsageError

    if certificate is not None and len(wanted) != 1:
        raise UsageError(
            "A certificate is of one network.",
            where="--certificate",
            found=f"{len(wanted)} recipes",
            expected="one RECIPE, or --checkpoint",
        )
    if certificate is not None:
        require_writable(certificate)


def _certify(network: LoadedNetwork, photos: Sequence[Path], path: Path) -> Certificate:
    """Write the certificate of ``network`` where every block holds; one that does not is only shown."""
    from deploykit.certificate.file import write_certificate
    from deploykit.certificate.make import certify
    from deploykit.verify.samples import draw_samples

    made = certify(network, draw_samples(network.recipe, photos))
    if made.passed:
        write_certificate(made, path)
    return made


def _of_verification(one: Verification) -> Iterator[RenderableType]:
    if one.stages:
        yield _stages(one)
        yield _reasons(one)
    if one.comparisons:
        yield _comparisons(one)
    if one.injections:
        yield _self_test(one)
    yield _verdict(one)


def _reporter(say: Callable[[str], None], name: str) -> Callable[[int, int, str], None]:
    def report(done: int, total: int, module: str) -> None:
        # Outside a terminal each line stays, so only every tenth is worth one.
        if done % 10 == 0 or done == total:
            say(f"{name}: self-test, {done} of {total} BatchNorms damaged {module}".rstrip())

    return report


def _stages(one: Verification) -> Table:
    from rich.table import Table

    table = Table(title=f"{one.recipe}: folds and merges per stage", title_justify="left")
    table.add_column("stage")
    for name in ("BatchNorms folded", "branches merged", "BatchNorms left"):
        table.add_column(name, justify="right")
    for stage in one.stages:
        table.add_row(stage.stage, str(stage.folded), str(stage.merged), str(stage.left))
    table.add_section()
    sums = [sum(getattr(stage, key) for stage in one.stages) for key in ("folded", "merged", "left")]
    table.add_row("total", *(str(number) for number in sums))
    expected = [one.expected_folds, one.expected_merges]
    table.add_row("expected", *("any" if number is None else str(number) for number in expected), "")
    return table


def _reasons(one: Verification) -> str:
    lines = []
    for report in one.passes:
        if report.name in ("fold_batch_norm", "merge_branches"):
            reasons = sorted(report.reasons().items(), key=lambda item: -item[1])
            lines += [f"  {report.name} left {count} alone: {reason}" for reason, count in reasons[:SHOWN]]
            if len(reasons) > SHOWN:
                lines.append(f"  {report.name}: {len(reasons) - SHOWN} more reasons in --json")
    return "\n".join(lines)


def _comparisons(one: Verification) -> Table:
    from rich.table import Table

    table = Table(title="training form in float64 against the deploy graph", title_justify="left")
    for name in ("computed in", "output"):
        table.add_column(name)
    for name in ("max abs", "median abs", "relative L2", "SNR dB", "masks equal", "wrong pixels", "worst at"):
        table.add_column(name, justify="right")
    table.add_column("verdict")
    for name, comparison in one.comparisons:
        agreement = comparison.mask_agreement
        table.add_row(
            name,
            comparison.output,
            f"{comparison.max_abs_error:.2e}",
            f"{comparison.median_abs_error:.2e}",
            f"{comparison.relative_l2:.2e}",
            f"{comparison.snr_db:.1f}",
            "-" if agreement is None else f"{agreement:.3%}",
            "-" if comparison.wrong_pixels is None else str(comparison.wrong_pixels),
            str(list(comparison.worst_index)),
            "pass" if comparison.passed else "FAIL",
        )
    return table


def _self_test(one: Verification) -> str:
    caught = [i for i in one.injections if i.outcome == "caught"]
    missed = [i for i in one.injections if i.outcome == "missed"]
    neutral = [i for i in one.injections if i.outcome == "neutral"]
    lines = [f"self-test: {len(caught)} caught / {len(caught) + len(missed)} injected; {len(neutral)} change nothing"]
    if caught:
        weakest = min(caught, key=lambda injection: injection.relative_l2)
        lines.append(f"  weakest caught: {weakest.dropped} of {weakest.module}, relative L2 {weakest.relative_l2:.1e}")
    lines += [f"  MISSED: {i.dropped} of {i.module}, relative L2 {i.relative_l2:.1e}" for i in missed]
    if one.dead_channels:
        total = sum(layer.dead for layer in one.dead_channels)
        layers = ", ".join(f"{layer.module} ({layer.dead} of {layer.channels})" for layer in one.dead_channels)
        lines.append(f"  {total} dead channels (|gamma| < 1e-06), whose mean and variance change nothing: {layers}")
    lines += [f"  changes nothing: {i.dropped} of {i.module}: {i.reason}" for i in neutral]
    return "\n".join(lines)


def _verdict(one: Verification) -> str:
    lines = [f"  {finding}" for finding in one.findings]
    for name, comparison in one.comparisons:
        lines += [f"  {name}, {comparison.output}: {failure}" for failure in comparison.failures]
    return "\n".join([f"{one.recipe}: {'equivalent within tolerance' if one.passed else 'FAILED'}", *lines])

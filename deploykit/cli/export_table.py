"""What ``deploykit export`` prints: files with their verdicts, and what a dry run found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from deploykit.errors import EXIT_FAILED
from deploykit.vocab import OutputKind, Target

if TYPE_CHECKING:
    from rich.table import Table

    from deploykit.errors import DeploykitError
    from deploykit.evaluation.records import EvaluationRun
    from deploykit.explain import Explanation
    from deploykit.preflight.records import Preflight
    from deploykit.records import Artifact, SkippedTarget


@dataclass(frozen=True)
class Outcome:
    """What became of every target that was asked for."""

    artifacts: tuple[Artifact, ...]
    skipped: tuple[SkippedTarget, ...]
    failed: tuple[tuple[Target, DeploykitError], ...]
    explained: tuple[Explanation, ...] = ()
    evaluation: EvaluationRun | None = None


def show_dry_run(found: Preflight, as_json: bool) -> None:
    """Print what a dry run found; exit code 1 where a target will refuse the network."""
    from deploykit.cli.console import print_json, stderr_console, stdout_console
    from deploykit.cli.preflight_tables import tables
    from deploykit.records import to_json, versioned

    if as_json:
        print_json(versioned("preflight", {**to_json(found), "passed": found.passed}))
    else:
        for one in tables(found):
            stdout_console().print(one, markup=False)
    for target in found.targets:
        for note in target.notes:
            stderr_console().print(f"note: {target.target}: {note}", markup=False)
    if not found.passed:
        raise typer.Exit(EXIT_FAILED)


def show(outcome: Outcome, as_json: bool) -> None:
    """Print the result; where a target failed, its error goes to stderr and decides the exit code."""
    from deploykit.cli.console import print_json, stderr_console, stdout_console
    from deploykit.records import to_json, versioned

    if as_json:
        body = {
            "artifacts": [{**to_json(one), "path": one.path.as_posix()} for one in outcome.artifacts],
            "skipped": to_json(outcome.skipped),
            "failed": [{"target": target.value, "error": error.render()} for target, error in outcome.failed],
            "explained": to_json(outcome.explained),
            "evaluation": to_json(outcome.evaluation),
        }
        print_json(versioned("export", body))
    else:
        results = stdout_console()
        if outcome.artifacts:
            results.print(_table(outcome))
        if any(one.quantization is not None for one in outcome.artifacts):
            results.print(_integers(outcome))
        for one in outcome.artifacts:
            results.print(one.path.as_posix(), markup=False, soft_wrap=True)
        if outcome.explained:
            from deploykit.cli.explain_table import tables

            for table in tables(outcome.explained):
                results.print(table)
    console = stderr_console()
    for one in outcome.artifacts:
        for note in (*one.lint, *(one.quantization.notes if one.quantization else ())):
            console.print(f"note: {one.plan.target}: {note}", markup=False)
    for target, error in outcome.failed:
        console.print(f"deploykit: error: {target}: {error}", markup=False)
    if outcome.failed:
        raise typer.Exit(min(error.exit_code for _, error in outcome.failed))


def _table(outcome: Outcome) -> Table:
    from rich.table import Table

    recipes = {one.recipe for one in outcome.artifacts}
    table = Table(
        title=f"Exported files of {', '.join(recipes)}" if recipes else "No file was exported", title_justify="left"
    )
    for name in ("target", "precision"):
        table.add_column(name)
    for name in ("size", "max abs error", "SNR dB", "masks equal", "wrong pixels"):
        table.add_column(name, justify="right")
    table.add_column("verdict")
    table.add_column("checked on", overflow="fold")
    for one in outcome.artifacts:
        for comparison in one.comparisons:
            agreement = "-" if comparison.mask_agreement is None else f"{comparison.mask_agreement:.3%}"
            # Of masks the classes are compared: one changed pixel would be an error of 1.
            of_values = one.plan.output_kind is not OutputKind.MASK
            table.add_row(
                one.plan.target.value,
                one.plan.precision.value,
                f"{one.size_bytes / 1000:.0f} kB",
                f"{comparison.max_abs_error:.2e}" if of_values else "-",
                f"{comparison.snr_db:.1f}" if of_values else "-",
                agreement,
                "-" if comparison.wrong_pixels is None else str(comparison.wrong_pixels),
                "pass" if comparison.passed else "FAIL",
                one.runtime,
            )
    for skip in outcome.skipped:
        table.add_row(skip.target.value, *["-"] * 6, "skipped", skip.reason)
    for target, error in outcome.failed:
        table.add_row(target.value, *["-"] * 6, "FAIL", error.message)
    return table


def _integers(outcome: Outcome) -> Table:
    """Return how each file came to its integers, and what it loses on held-out portraits."""
    from rich.table import Table

    run = outcome.evaluation
    of_what = "" if run is None else f"; held out: {len(run.evaluations[0].images)} {run.data}"
    table = Table(title=f"Integers{of_what}", title_justify="left")
    table.add_column("target")
    table.add_column("ranges", overflow="fold")
    names = ("layers in float", "weight bytes", "masks lost", "held-out mIoU", "boundary F1", "edge IoU", "flicker")
    for name in names:
        table.add_column(name, justify="right")
    for one in outcome.artifacts:
        made = one.quantization
        if made is None:
            continue
        lost = [trade.drop_points for trade in made.trades if trade.kept == len(made.kept)]
        ranges = "-" if made.estimator is None else made.estimator.value
        table.add_row(
            one.plan.target.value,
            f"{ranges}, equalized by {made.equalization:g}" if made.equalization else ranges,
            f"{len(made.kept)} of {made.layers}" if made.layers else "all: weights alone",
            f"{made.weight_bytes / max(made.float_weight_bytes, 1):.1%}",
            f"{lost[0]:.2f} points" if lost else "-",
            *(_figure(outcome, one, metric) for metric in ("two_class_miou", "boundary_f1", "edge_iou", "flicker")),
        )
    return table


def _figure(outcome: Outcome, artifact: Artifact, metric: str) -> str:
    """Return a figure on the held-out portraits and, in points, its difference to the network's."""
    for one in outcome.evaluation.evaluations if outcome.evaluation else ():
        if one.content_hash == artifact.content_hash:
            found = one.summary(metric)
            if found.estimate is None:
                return "-"
            change = "" if found.difference is None else f" ({100 * found.difference.value:+.2f})"
            return f"{found.estimate.value:.4f}{change}"
    return "-"

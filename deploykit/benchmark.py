"""Latency of exported files on this machine: found or exported first, then measured interleaved."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from deploykit.artifact import find_artifacts
from deploykit.errors import UsageError
from deploykit.latency.drivers.host import measure_on_host, unmeasurable
from deploykit.latency.measure import MIN_RUNS, MIN_SECONDS, check_plan
from deploykit.latency.subjects import Subject, exported_subjects, find_subjects
from deploykit.latency_records import Benchmark, SkippedLatency
from deploykit.network import LoadedNetwork, load_network
from deploykit.pipeline import DEFAULT_FOLDER, export
from deploykit.recipe import Recipe, default_recipe, load_recipe
from deploykit.verify.samples import draw_samples
from deploykit.vocab import Target

Say = Callable[[str], None]


def bench(
    artifacts: Sequence[Path | str] = (),
    *,
    output_dir: Path | None = None,
    recipe: str | Path | None = None,
    threads: int = 1,
    runs: int = MIN_RUNS,
    seconds: float = MIN_SECONDS,
    report: Say | None = None,
) -> Benchmark:
    """Return the latencies of ``artifacts`` (files, packages or folders), interleaved in this process.

    Without any, those below ``output_dir`` are measured; where there are none, the default recipe is exported to
    a temporary folder. ``recipe`` measures that network in PyTorch eager beside them. Times are in seconds.

    Raises:
        UsageError: arguments that do not go together or are out of range.
        ArtifactError: a file that is missing, damaged or differs from its manifest.
        TargetError: nothing that can be measured on this machine.
    """
    say = report or (lambda message: None)
    check_plan(threads, runs, seconds)
    paths = [Path(path) for path in artifacts]
    if paths and output_dir is not None:
        raise UsageError(
            "ARTIFACT and --output-dir do not go together.",
            found=f"{', '.join(map(str, paths))} and {output_dir}",
            expected="files to measure, or the folder to look for them in",
        )
    chosen = load_recipe(recipe) if recipe else None
    subjects = find_subjects(paths) if paths else _found(output_dir, chosen)
    with tempfile.TemporaryDirectory(prefix="deploykit-bench-") as folder:
        skipped: tuple[SkippedLatency, ...] = ()
        network = None
        if chosen is not None or not subjects:
            chosen = chosen or load_recipe(default_recipe(Path.cwd()))
            say(f"loading the network of {chosen.name}")
            network = load_network(chosen)
            if not subjects:
                say(f"nothing of {chosen.name} in {output_dir or DEFAULT_FOLDER}: exporting it")
                subjects, skipped = _exported(network, Path(folder), say)
        result = measure_on_host(
            subjects,
            network=network,
            recipe=chosen,
            threads=threads,
            min_runs=runs,
            min_seconds=seconds,
            report=say,
        )
    return replace(result, skipped=(*result.skipped, *skipped))


def _found(output_dir: Path | None, recipe: Recipe | None) -> tuple[Subject, ...]:
    if output_dir is not None and not output_dir.is_dir():
        raise UsageError(
            "The output folder cannot be read.",
            where=str(output_dir),
            found="a file" if output_dir.exists() else "nothing",
            expected="a folder with what deploykit export wrote",
        )
    artifacts = find_artifacts(output_dir or DEFAULT_FOLDER)
    return exported_subjects(one for one in artifacts if recipe is None or one.recipe == recipe.name)


def _exported(
    network: LoadedNetwork, folder: Path, say: Callable[[str], None]
) -> tuple[tuple[Subject, ...], tuple[SkippedLatency, ...]]:
    # What cannot be measured here is not exported for it either.
    reasons = {target: unmeasurable(target) for target in Target}
    targets = [target for target, reason in reasons.items() if not reason]
    skipped = tuple(SkippedLatency(str(target), reason) for target, reason in reasons.items() if reason)
    if not targets:
        return (), skipped
    artifacts = export(network, targets, draw_samples(network.recipe), folder, step=say)
    return exported_subjects(artifacts), skipped

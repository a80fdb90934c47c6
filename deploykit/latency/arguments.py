"""What ``bench`` and ``compare`` refuse at once: looked at before anything heavy is imported."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from deploykit.errors import TargetError, UsageError
from deploykit.latency.agent.cores import usable
from deploykit.latency.drivers.programs import ADB, require_program
from deploykit.latency.drivers.table import DRIVERS, Driver, driver_of
from deploykit.latency.measure import check_plan
from deploykit.latency.subjects import Subject, find_subjects, unmeasurable

PYTORCH = "pytorch:"


def check_bench(
    artifacts: Sequence[Path],
    *,
    output_dir: Path | None,
    recipe: str | Path | None,
    images: Path | None,
    compiled: bool,
    end_to_end: bool,
    threads: Sequence[int],
    runs: int,
    seconds: float,
    max_seconds: float,
    precision_target: float | None,
    affinity: str | Sequence[int] | None,
    device: str,
    accelerators: Sequence[str] = (),
) -> None:
    """Raise the error of the first argument of ``bench`` that is wrong; see ``deploykit.benchmark.bench``."""
    for count in threads:
        check_plan(count, runs, seconds, max_seconds, precision_target)
    driver, _ = driver_of(device)
    unknown = [one for one in accelerators if one not in DRIVERS[driver].accelerators]
    if unknown:
        raise UsageError(
            "This driver has no such accelerator.",
            where=f"--device {device}",
            found=", ".join(unknown),
            expected=", ".join(DRIVERS[driver].accelerators),
        )
    if driver is Driver.HOST:
        _check_cores(affinity)
    elif compiled or end_to_end:
        raise UsageError(
            "PyTorch and the steps around the inference are measured on this machine only.",
            found=f"--device {device} with {'--compile' if compiled else '--end-to-end'}",
            expected="one of them",
        )
    if artifacts and output_dir is not None:
        raise UsageError(
            "ARTIFACT and --output-dir do not go together.",
            found=f"{', '.join(map(str, artifacts))} and {output_dir}",
            expected="files to measure, or the folder to look for them in",
        )
    if output_dir is not None and not output_dir.is_dir():
        raise UsageError(
            "The output folder cannot be read.",
            where=str(output_dir),
            found="a file" if output_dir.exists() else "nothing",
            expected="a folder with what deploykit export wrote",
        )
    if compiled and recipe is None and artifacts:
        raise UsageError(
            "--compile is for a network in PyTorch, and none is named.",
            found="files alone",
            expected="--recipe with the network's recipe",
        )
    find_subjects(artifacts)
    _look_at(recipe, images)
    if driver is Driver.ADB and artifacts:
        require_program(ADB)


def check_compare(
    named: Sequence[str],
    *,
    margin: float,
    max_seconds: float,
    threads: int,
    recipe: str | None,
    images: Path | None,
    instructions: bool,
) -> tuple[Subject | None, Subject | None]:
    """Return the files of the two sides that ``compare`` is given, None for a network in PyTorch.

    Raises the error of the first argument that is wrong; see ``deploykit.comparison.compare``.
    """
    rows = (
        ("--margin", margin, 0 < margin < 1, "more than 0 and less than 100 %"),
        ("--max-seconds", max_seconds, math.isfinite(max_seconds) and max_seconds > 0, "more than 0"),
        ("--threads", threads, threads >= 1, "at least 1"),
    )
    for option, found, good, expected in rows:
        if not good:
            raise UsageError(f"{option} is out of range.", found=str(found), expected=expected)
    if len(named) != 2:
        raise UsageError(
            "Two things are compared with each other.",
            found=f"{len(named)}: {', '.join(named)}" if named else "none",
            expected="A and B: exported files, their folders, or pytorch:RECIPE",
            next_step="deploykit bench measures one file, or many beside each other",
        )
    files = [Path(name) for name in named if not name.startswith(PYTORCH)]
    if not files and len(set(named)) == 1:
        raise UsageError("The same network is given twice.", found=named[0], expected="two different things")
    subjects = find_subjects(files)
    if len(subjects) > len(files):
        raise UsageError(
            "A folder holds several artifacts.",
            where=" or ".join(str(path) for path in files if path.is_dir()),
            found=", ".join(one.name for one in subjects),
            expected="one file for each side",
            next_step="name the files themselves",
        )
    for one in subjects:
        reason = unmeasurable(one.target)
        if reason:
            raise TargetError(
                "The file cannot be measured on this machine.",
                where=str(one.path),
                found=reason,
                expected="a file whose runtime is here",
            )
    for name in named:
        _look_at(name.removeprefix(PYTORCH) if name.startswith(PYTORCH) else None, None)
    _look_at(recipe, images)
    if instructions:
        from deploykit.latency.instructions import require_valgrind

        require_valgrind()
    told = iter(subjects)
    first, second = (None if name.startswith(PYTORCH) else next(told) for name in named)
    return first, second


def _check_cores(affinity: str | Sequence[int] | None) -> None:
    cores = usable()
    if affinity is None or isinstance(affinity, str) or not cores:
        return
    missing = sorted(set(affinity) - set(cores))
    if missing:
        raise UsageError(
            "--affinity names a core that this process may not use.",
            found=", ".join(map(str, missing)),
            expected=f"some of {', '.join(map(str, cores))}, auto or none",
        )


def _look_at(recipe: str | Path | None, images: Path | None) -> None:
    if recipe is not None:
        from deploykit.recipe import load_recipe

        load_recipe(recipe)
    if images is not None:
        from deploykit.images.preprocess import image_paths

        image_paths(images)

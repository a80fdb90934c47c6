"""Which of two is faster: exported files, or a network in PyTorch eager, run against each other until it is clear."""

from __future__ import annotations

import datetime
import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from deploykit.artifact import hash_files, hash_items
from deploykit.comparison_records import Judgement, LatencyComparison, Side, median_of
from deploykit.errors import DeploykitError, UsageError
from deploykit.inspection import inspect_file
from deploykit.latency.agent.cores import chosen
from deploykit.latency.arguments import PYTORCH, check_compare
from deploykit.latency.contender import Contender, Opened
from deploykit.latency.drivers.host import EAGER
from deploykit.latency.duel import Duel
from deploykit.latency.inputs import photos_in
from deploykit.latency.instructions import NOT_AVX512, count_instructions
from deploykit.latency.machine import device_name, share_of_runs, this_machine, warnings_about
from deploykit.latency.pairs import ERROR, MARGIN, MIN_ROUNDS, as_samples, judge
from deploykit.latency.schedule import A, B
from deploykit.latency.subjects import Subject
from deploykit.latency.trial import Trial, run_trial
from deploykit.latency_records import PREEMPTED, Conditions, Machine, Warned
from deploykit.recipe import load_recipe

MAX_SECONDS = 30.0
_SPINNING = "threads of the session that ran before may still spin while another one runs: --threads 1 is surer"
Entered = tuple[Contender, Subject | None]


def compare(
    first: Path | str,
    second: Path | str,
    *,
    margin: float = MARGIN,
    max_seconds: float = MAX_SECONDS,
    threads: int = 1,
    images: Path | None = None,
    recipe: str | None = None,
    instructions: bool = False,
    seed: int = 2026,
    error: float = ERROR,
    report: Callable[[str], None] | None = None,
) -> LatencyComparison:
    """Return whether ``second`` is faster or slower than ``first`` by more than ``margin`` (0.02: two per cent).

    Each is an exported file, its folder or manifest, or ``pytorch:RECIPE`` for a network in PyTorch eager. They run in
    a process of their own, on the cores that are idlest, until it is clear or ``max_seconds`` are over. ``images`` is a
    photo or a folder of photos to run on; ``recipe`` describes the inputs of files without a manifest. With
    ``instructions`` those of one inference are counted by valgrind. ``error`` is the chance of finding a difference
    where there is none; several comparisons of one run share it.

    Raises:
        UsageError: options out of range, one file twice, or inputs of different sizes.
        ArtifactError: a file that is missing or damaged, or that its runtime does not load or run.
        TargetError: a runtime that is not here, or no valgrind.
    """
    named = (str(first), str(second))
    subjects = check_compare(
        named,
        margin=margin,
        max_seconds=max_seconds,
        threads=threads,
        recipe=recipe,
        images=images,
        instructions=instructions,
    )
    say = report or (lambda message: None)
    photos = photos_in(images)
    sides = _sides(named, subjects, recipe, photos)
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    affinity = tuple(chosen("auto", threads))
    say("opening both")
    one, two = (contender for contender, _ in sides)
    counted: Sequence[int | None] = (None, None)
    with Duel(one, two, threads, affinity) as duel:
        _require_like_inputs(sides, duel.opened)
        trial = run_trial(duel, max_seconds, margin=margin, seed=seed, error=error, report=say)
        complete = trial.complete
        if instructions and complete:
            counted, complete = _counted(duel, sides, say)
    machine = this_machine()
    figures = [_figures(subject) for _, subject in sides]
    notes = tuple(note for _, found in figures for note in found)
    records = [
        Side(
            name=contender.name,
            runtime=opened.runtime,
            median_s=median_of(trial.rounds, index),
            content_hash=None if subject is None else _hash(subject),
            figures=figures[index][0],
            instructions=counted[index],
        )
        for index, ((contender, subject), opened) in enumerate(zip(sides, duel.opened, strict=True))
    ]
    return LatencyComparison(
        first=records[A],
        second=records[B],
        judgement=trial.judgement,
        threads=threads,
        affinity=affinity,
        seed=seed,
        seconds=trial.seconds,
        max_seconds=max_seconds,
        preempted=trial.preempted,
        rounds=trial.rounds,
        machine=machine,
        device=device_name(machine),
        conditions=tuple(duel.conditions),
        warnings=_warnings(machine, duel.conditions, trial, threads, affinity),
        notes=(*notes, *((NOT_AVX512,) if instructions else ()), *((_SPINNING,) if threads > 1 else ())),
        started=started,
        complete=complete,
    )


def _counted(
    duel: Duel, sides: tuple[Entered, Entered], say: Callable[[str], None]
) -> tuple[Sequence[int | None], bool]:
    """Return the instructions of both sides, and whether they were counted to the end: Ctrl-C keeps what there is."""
    counted: list[int | None] = [None, None]
    try:
        with tempfile.TemporaryDirectory(prefix="deploykit-") as folder:
            inputs = duel.save_inputs(Path(folder))
            for index, ((_, subject), given) in enumerate(zip(sides, inputs, strict=True)):
                if subject is not None:
                    counted[index] = count_instructions(subject, given, say)
    except KeyboardInterrupt:
        return counted, False
    return counted, True


def judged_again(found: LatencyComparison, error: float) -> Judgement:
    """Return what the samples of a comparison that used up its time say with another ``error``."""
    return judge(as_samples(found.rounds), margin=found.judgement.margin, seed=found.seed, error=error)


def _sides(
    named: Sequence[str], subjects: Sequence[Subject | None], recipe: str | None, photos: tuple[Path, ...]
) -> tuple[Entered, Entered]:
    one, two = (
        _network(name, photos) if subject is None else (Contender(subject.name, subject.path, recipe, photos), subject)
        for name, subject in zip(named, subjects, strict=True)
    )
    return one, two


def _network(name: str, photos: tuple[Path, ...]) -> Entered:
    recipe = name.removeprefix(PYTORCH)
    return Contender(f"{EAGER}: {load_recipe(recipe).name}", None, recipe, photos), None


def _require_like_inputs(sides: tuple[Entered, Entered], opened: tuple[Opened, Opened]) -> None:
    """Raise UsageError unless the inputs of both have the same sizes, in any order of inputs and axes."""
    one, two = (sorted(sorted(shape) for shape in side.input_shapes) for side in opened)
    if one != two:
        found = (
            f"{contender.name}: {', '.join(str(list(shape)) for shape in side.input_shapes)}"
            for (contender, _), side in zip(sides, opened, strict=True)
        )
        raise UsageError(
            "The two do not take inputs of the same size.",
            found="; ".join(found),
            expected="the same amount of work, done in two ways",
            next_step="export both at the same --size",
        )


def _figures(subject: Subject | None) -> tuple[dict[str, int | None], tuple[str, ...]]:
    """Return what can be counted in a file, and why where nothing can."""
    if subject is None:
        return {}, ()
    try:
        found = inspect_file(subject.path)
    except DeploykitError as error:
        return {}, (f"{subject.name} is not counted: {error.message} {error.found or ''}".strip(),)
    contents = found.contents
    return {
        "bytes": contents.size_bytes,
        "operations": sum(contents.operations.values()),
        "transposes": contents.transposes,
        found.convention.value: found.macs,
    }, ()


def _hash(subject: Subject) -> str:
    if subject.artifact is not None:
        return subject.artifact.content_hash
    return hash_items(one.sha256.encode() for one in hash_files(subject.path))


def _warnings(
    machine: Machine, conditions: Sequence[Conditions], trial: Trial, threads: int, affinity: Sequence[int]
) -> tuple[Warned, ...]:
    found = [*warnings_about(machine, conditions, threads, affinity)]
    if trial.preempted > PREEMPTED:
        found.append(
            Warned(
                f"other programs had the core during {share_of_runs(trial.preempted)}; their time is taken off",
                "end them, or give the comparison more time with --max-seconds",
            )
        )
    if trial.complete and trial.judgement.effect is None:
        wanted = math.ceil(2 * trial.seconds * MIN_ROUNDS / max(1, len(trial.rounds)))
        found.append(Warned("there was too little time for a verdict", f"give it more with --max-seconds {wanted}"))
    return tuple(found)

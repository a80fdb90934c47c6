"""Measure files on this machine's own runtimes, and PyTorch beside them, in processes of their own."""

from __future__ import annotations

import datetime
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from deploykit.artifact import MANIFEST
from deploykit.chatter import contained
from deploykit.errors import ArtifactError, TargetError, UsageError
from deploykit.latency.eager import OPENER
from deploykit.latency.end_to_end import FILE_OPENER, NETWORK_OPENER, require_photos
from deploykit.latency.inputs import build_inputs, photos_or_drawn, samples_of, save_inputs
from deploykit.latency.machine import device_name, warnings_about
from deploykit.latency.measure import Protocol, check_plan
from deploykit.latency.recording import INTERRUPTED, Recording
from deploykit.latency.subjects import Subject, timed_elsewhere, unmeasurable
from deploykit.latency.worker import PROGRAM, PlannedSubject, agent_program, make_plan, run_agent
from deploykit.latency_records import Benchmark, Latency, SkippedLatency, Warned
from deploykit.network import LoadedNetwork
from deploykit.recipe import Recipe, recipe_from_table
from deploykit.records import TensorRecord
from deploykit.targets.base import Runtime, require_fixed_shapes
from deploykit.targets.table import part
from deploykit.vocab import Target

DRIVER = "host"
EAGER = "PyTorch eager"
COMPILED = "torch.compile"
_COMPILERS = ("g++", "clang++", "c++")


@dataclass(frozen=True)
class _Item:
    """One thing to measure: its part of the plan, and what its record says of it beside the times."""

    planned: PlannedSubject
    about: dict[str, Any] = field(default_factory=dict)


def measure_on_host(
    subjects: Sequence[Subject],
    *,
    network: LoadedNetwork | None = None,
    compiled: bool = False,
    recipe: Recipe | None = None,
    threads: int | Sequence[int] = 1,
    protocol: Protocol | None = None,
    photos: Sequence[Path] = (),
    end_to_end: bool = False,
    report: Callable[[str], None] | None = None,
) -> Benchmark:
    """Return the latencies of ``network`` in PyTorch eager, where given, and of ``subjects``, all interleaved.

    ``compiled`` measures it with torch.compile as well. Each number of ``threads`` is measured in a process of its
    own, one after the other; within one, all subjects take turns. Inputs are ``photos``, else a synthetic portrait,
    through the recipe in the manifest of a file (``recipe`` for one without), else uniform values of the declared
    shapes and types. ``end_to_end`` measures the way from a decoded photo to the composite instead of the inference.
    What cannot be measured is skipped with the reason. Ctrl-C ends it: what there is until then is returned.

    Raises:
        UsageError: threads, runs or seconds out of range; photos for a file that no recipe describes.
        ArtifactError: a file that its runtime cannot load, or nothing that a runtime can run.
        RecipeError: ``end_to_end`` for a network that does not make a mask of a photo.
        TargetError: nothing at all can be measured here.
    """
    asked = protocol or Protocol()
    counts = (threads,) if isinstance(threads, int) else tuple(threads)
    for count in counts:
        check_plan(count, asked.min_runs, asked.min_seconds, asked.max_seconds, asked.precision_target)
    say = report or (lambda message: None)
    targets = {subject.name: subject.target for subject in subjects}
    reasons = {name: unmeasurable(target) for name, target in targets.items()}
    skipped = [
        SkippedLatency(name, reason, elsewhere=bool(timed_elsewhere(targets[name])))
        for name, reason in reasons.items()
        if reason
    ]
    if compiled and network is not None:
        reasons[COMPILED] = no_compiler()
        skipped += [SkippedLatency(COMPILED, reasons[COMPILED])] if reasons[COMPILED] else []
    if network is None and len(skipped) == len(subjects):
        raise TargetError(
            "There is nothing that can be measured on this machine.",
            found="; ".join(f"{one.artifact}: {one.reason}" for one in skipped) or "no artifact",
            expected="at least one artifact whose runtime is here",
        )
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    with tempfile.TemporaryDirectory(prefix="deploykit-bench-") as place:
        folder = Path(place)
        made = _Plan(folder, recipe, photos, end_to_end)
        items: list[_Item] = []
        if network is not None:
            items += made.networks(network, [EAGER, *([COMPILED] if compiled and not reasons[COMPILED] else [])])
        for subject in subjects:
            if not reasons[subject.name]:
                say(f"reading {subject.name}")
                items.append(made.file(subject))
        recordings = list(_recorded(items, counts, asked, folder, say))
    return _benchmark(items, recordings, skipped, started)


def no_compiler() -> str:
    """Return why torch.compile cannot be measured on this machine, or an empty text where it can."""
    named = os.environ.get("CXX")
    looked_for = (named,) if named else _COMPILERS
    if any(shutil.which(name) for name in looked_for):
        return ""
    return f"torch.compile needs a C++ compiler, and there is no {' or '.join(looked_for)}; sudo apt install g++"


class _Plan:
    """Writes what the agent reads below ``folder``."""

    def __init__(self, folder: Path, recipe: Recipe | None, photos: Sequence[Path], end_to_end: bool) -> None:
        self._folder = folder
        self._recipe = recipe
        self._photos = photos
        self._shown = photos_or_drawn(photos, folder) if end_to_end else ()
        self._made = 0

    def _stem(self) -> str:
        self._made += 1
        return f"input-{self._made}"

    def networks(self, network: LoadedNetwork, names: Sequence[str]) -> Iterator[_Item]:
        """Yield ``network`` under each of ``names``."""
        recipe = network.recipe
        state = self._folder / "network.pt"
        torch.save(network.module.state_dict(), state)
        if self._shown:
            require_photos(recipe)
        tensors = [sample.tensors for sample in samples_of(recipe, self._photos)]
        inputs = save_inputs(tensors, self._folder, self._stem())
        for name in names:
            arguments = {
                "recipe": recipe.file.model_dump(mode="json"),
                "recipe_path": str(recipe.path.resolve()),
                "compiled": name == COMPILED,
                "photos": list(self._shown),
            }
            opener = NETWORK_OPENER if self._shown else OPENER
            planned = PlannedSubject(
                name,
                str(state),
                "pytorch",
                inputs=inputs,
                opener=opener,
                arguments=arguments,
                profiled={"opener": OPENER},
            )
            yield _Item(planned, {"network": recipe.name})

    def file(self, subject: Subject) -> _Item:
        """Return ``subject`` with its inputs written out."""
        artifact = subject.artifact
        recipe = self._recipe
        if artifact is not None and artifact.recipe_table:
            recipe = recipe_from_table(artifact.recipe_table, subject.path.parent / MANIFEST)
        about = {
            "size_bytes": subject.size_bytes,
            "target": subject.target,
            "precision": artifact.plan.precision if artifact else None,
            "content_hash": artifact.content_hash if artifact else None,
            "network": artifact.recipe if artifact else None,
        }
        path = str(subject.path.resolve())
        if self._shown:
            if artifact is None or recipe is None:
                raise UsageError(
                    "Nothing says how the file takes photos and what it makes of them.",
                    where=f"--end-to-end: {subject.path}",
                    found="a file without a manifest",
                    expected="an artifact that deploykit export wrote",
                )
            require_photos(recipe)
        planned = PlannedSubject(
            subject.name,
            path,
            subject.target,
            inputs=save_inputs(build_inputs(_declared(subject), recipe, self._photos), self._folder, self._stem()),
            options=_options(subject),
        )
        if self._shown:
            around = {"photos": list(self._shown)}
            planned = replace(planned, opener=FILE_OPENER, arguments=around, profiled={"opener": None})
        return _Item(planned, about)


def _declared(subject: Subject) -> tuple[TensorRecord, ...]:
    """Return what the file takes. Raises ArtifactError where its runtime cannot load it, or a size is not fixed."""
    if subject.artifact is not None and subject.artifact.inputs:
        return subject.artifact.inputs
    with contained(), part(subject.target, "runtime").open_artifact(subject.path) as opened:
        runtime: Runtime = opened
        require_fixed_shapes(subject.path, runtime.inputs)
        return runtime.inputs


def _options(subject: Subject) -> dict[str, str]:
    if subject.target is not Target.ONNX:
        return {}
    found: dict[str, str] = part(Target.ONNX, "runtime").integer_options(subject.path)
    return found


def _recorded(
    items: Sequence[_Item], counts: Sequence[int], protocol: Protocol, folder: Path, say: Callable[[str], None]
) -> Iterator[tuple[int, Recording]]:
    """Yield what the agent said for each of ``counts`` threads; nothing more after it ended early."""
    program = folder / PROGRAM
    program.write_bytes(agent_program())
    scratch = folder / "scratch"
    scratch.mkdir()
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        # What torch.compile made is thrown away with the folder: the next run compiles as the first one did.
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "compiled"),
        # What runtimes and compilers leave in the temporary folder goes with ours.
        **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(scratch)),
    }
    begun = time.perf_counter()
    for count in counts:
        recording = Recording(offset_s=time.perf_counter() - begun)
        planned = [_with_threads(item.planned, count) for item in items]
        say_it = partial(_said, say, f"{count} thread{'' if count == 1 else 's'}: " if len(counts) > 1 else "")
        run_agent(
            [sys.executable, str(program)],
            make_plan(planned, protocol),
            environment=environment,
            report=say_it,
            recording=recording,
        )
        yield count, recording
        if not recording.complete:
            return


def _said(say: Callable[[str], None], start: str, message: str) -> None:
    say(start + message)


def _with_threads(planned: PlannedSubject, count: int) -> PlannedSubject:
    return replace(planned, threads=count)


def _benchmark(
    items: Sequence[_Item],
    recordings: Sequence[tuple[int, Recording]],
    skipped: Sequence[SkippedLatency],
    started: str,
) -> Benchmark:
    last = recordings[-1][1]
    machine = next((one.machine for _, one in recordings if one.machine is not None), None)
    device = device_name(machine)
    measured: list[Latency] = []
    left_out = list(skipped)
    for item in items:
        name = item.planned.name
        for count, recording in recordings:
            found = recording.latency(name, device=device, driver=DRIVER, threads=count, **item.about)
            if found is not None:
                measured.append(found)
            else:
                left_out.append(SkippedLatency(name, _why_not(recording, name)))
    if not measured and last.ended != INTERRUPTED:
        raise ArtifactError(
            "The files load, but nothing can be measured.",
            where=", ".join(item.planned.name for item in items),
            found="; ".join(dict.fromkeys(one.reason for one in left_out[len(skipped) :])),
            expected="models that their runtimes run on inputs of the shapes and types that they declare",
        )
    conditions = tuple(one for _, recording in recordings for one in recording.conditions)
    return Benchmark(
        measured=tuple(measured),
        skipped=tuple(left_out),
        machine=machine,
        conditions=conditions,
        warnings=_warnings(recordings),
        started=started,
        complete=last.complete,
        ended=last.ended,
    )


def _warnings(recordings: Sequence[tuple[int, Recording]]) -> tuple[Warned, ...]:
    """Return what is to be said, once for each remedy. Counters are those of the cores that one recording watched."""
    found = {}
    for count, recording in recordings:
        for one in warnings_about(recording.machine, recording.conditions, count, recording.affinity):
            found[one.remedy] = one
    return tuple(found.values())


def _why_not(recording: Recording, name: str) -> str:
    problems: Mapping[str, str] = recording.of(name).problems
    return problems.get("steady") or "; ".join([*problems.values(), *recording.common_problems]) or recording.ended

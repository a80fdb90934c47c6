"""Measure files on this machine's own runtimes, and PyTorch eager beside them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np
import torch

from deploykit.artifact import MANIFEST
from deploykit.chatter import contained
from deploykit.errors import ArtifactError, DeploykitError, TargetError
from deploykit.latency.machine import device_name
from deploykit.latency.measure import MIN_RUNS, MIN_SECONDS, Runner, check_plan, measure_interleaved
from deploykit.latency.subjects import Subject
from deploykit.latency_records import Benchmark, SkippedLatency
from deploykit.network import LoadedNetwork
from deploykit.recipe import Recipe, recipe_from_table
from deploykit.records import TensorRecord
from deploykit.targets.base import Array, Runtime, require_fixed_shapes
from deploykit.targets.table import TARGETS, part
from deploykit.verify.reference import as_tensors
from deploykit.verify.samples import draw_samples, feed
from deploykit.vocab import Target

DRIVER = "host"
EAGER = "PyTorch eager"
INPUT_SEED = 2026


def measure_on_host(
    subjects: Sequence[Subject],
    *,
    network: LoadedNetwork | None = None,
    recipe: Recipe | None = None,
    threads: int = 1,
    min_runs: int = MIN_RUNS,
    min_seconds: float = MIN_SECONDS,
    report: Callable[[str], None] | None = None,
) -> Benchmark:
    """Return the latencies of ``network`` in PyTorch eager, where given, and of ``subjects``, all interleaved.

    Each gets one seeded input: a synthetic portrait through the recipe in its manifest (``recipe`` for a file
    without one), else uniform values of the declared shapes and types. A subject whose runtime
    is not on this machine is skipped with the reason.

    Raises:
        UsageError: threads, runs or seconds out of range.
        ArtifactError: a file that its runtime cannot load or run.
        TargetError: nothing at all can be measured here.
    """
    check_plan(threads, min_runs, min_seconds)
    reasons = {subject.name: unmeasurable(subject.target) for subject in subjects}
    skipped = tuple(SkippedLatency(name, reason) for name, reason in reasons.items() if reason)
    if network is None and len(skipped) == len(subjects):
        raise TargetError(
            "There is nothing that can be measured on this machine.",
            found="; ".join(f"{one.artifact}: {one.reason}" for one in skipped) or "no artifact",
            expected="at least one artifact whose runtime is here",
        )
    with ExitStack() as stack:
        runners = [stack.enter_context(_eager(network, threads))] if network is not None else []
        for subject in subjects:
            if not reasons[subject.name]:
                if report:
                    report(f"loading {subject.name}")
                runners.append(stack.enter_context(_file(subject, recipe, threads)))
        measured = measure_interleaved(runners, min_runs=min_runs, min_seconds=min_seconds, report=report)
    return Benchmark(measured, skipped)


def unmeasurable(target: Target) -> str:
    """Return why files of ``target`` cannot be measured on this machine, or an empty text where they can."""
    row = TARGETS[target]
    if row.missing():
        return f"not installed: {', '.join(row.missing())}; {row.install_command()}"
    if target is Target.COREML and sys.platform != "darwin":
        return "Core ML latency needs macOS; the reference interpreter's speed says nothing about it"
    if target is Target.COREAI:
        return "a Core AI file runs here in a process of its own, to verify it; that says nothing about its speed"
    return ""


@contextmanager
def _eager(network: LoadedNetwork, threads: int) -> Iterator[Runner]:
    sample = draw_samples(network.recipe, noise=0, portraits=1)[0]
    inputs = as_tensors(sample, network.recipe, torch.float32)

    def run() -> object:
        with torch.inference_mode():
            return network.module(*inputs)

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield Runner(
            name=EAGER,
            run=run,
            device=device_name(),
            driver=DRIVER,
            accelerator="cpu",
            threads=threads,
            runtime=f"PyTorch {torch.__version__}",
        )
    finally:
        torch.set_num_threads(before)


@contextmanager
def _file(subject: Subject, recipe: Recipe | None, threads: int) -> Iterator[Runner]:
    artifact = subject.artifact
    with ExitStack() as stack:
        with contained():
            runtime: Runtime = stack.enter_context(part(subject.target, "runtime").open_artifact(subject.path, threads))
            require_fixed_shapes(subject.path, runtime.inputs)
            inputs = build_inputs(runtime.inputs, _recipe_of(subject, recipe))
            _try(subject, runtime, inputs)
        # Core ML takes no number of threads.
        own = ", threads chosen by Core ML" if subject.target is Target.COREML else ""
        yield Runner(
            name=subject.name,
            run=lambda: runtime.run(inputs),
            device=device_name(),
            driver=DRIVER,
            accelerator="cpu",
            threads=threads,
            size_bytes=subject.size_bytes,
            runtime=runtime.name + own,
            target=subject.target,
            precision=artifact.plan.precision if artifact else None,
            content_hash=artifact.content_hash if artifact else None,
        )


def _try(subject: Subject, runtime: Runtime, inputs: Mapping[str, Array]) -> None:
    try:
        runtime.run(inputs)
    except DeploykitError:
        raise
    except Exception as error:
        # Runtimes raise bare C++ exceptions whose classes they do not export under stable names.
        raise ArtifactError(
            "The file loads, but its runtime cannot run it.",
            where=str(subject.path),
            found=str(error).strip()[:400],
            expected=f"a model that {runtime.name} runs on inputs of the shapes and types that it declares",
        ) from error


def _recipe_of(subject: Subject, given: Recipe | None) -> Recipe | None:
    artifact = subject.artifact
    if artifact is None or not artifact.recipe_table:
        return given
    return recipe_from_table(artifact.recipe_table, subject.path.parent / MANIFEST)


def build_inputs(records: Sequence[TensorRecord], recipe: Recipe | None) -> dict[str, Array]:
    """Return one seeded input for each of ``records``, from ``recipe`` where it describes exactly these."""
    if recipe is not None and {item.name for item in recipe.file.inputs} == {record.name for record in records}:
        given = feed(draw_samples(recipe, noise=0, portraits=1)[0], records, recipe)
        if all(given[record.name].shape == record.shape for record in records):
            return given
    rng = np.random.default_rng(INPUT_SEED)
    return {record.name: _uniform(record, rng) for record in records}


def _uniform(record: TensorRecord, rng: np.random.Generator) -> Array:
    dtype = np.dtype(record.dtype)
    if dtype.kind == "f":
        return rng.uniform(size=record.shape).astype(dtype)
    # Wider integers are often indices, for which only small ones are safe.
    top = int(np.iinfo(dtype).max) if dtype.kind in "iu" and dtype.itemsize == 1 else 1
    return rng.integers(0, top, size=record.shape, endpoint=True).astype(dtype)

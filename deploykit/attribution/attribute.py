"""From an exported file to the module that makes its error."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from deploykit.attribution.align import align
from deploykit.attribution.file import File, Fit
from deploykit.attribution.judge import Judgement
from deploykit.attribution.lowered import Lowered
from deploykit.attribution.parts import Parts, split
from deploykit.attribution.records import Attribution, Part
from deploykit.attribution.rows import Measured, rows, segments
from deploykit.attribution.sentence import sentence
from deploykit.attribution.walk import Walk
from deploykit.chatter import contained
from deploykit.errors import ArtifactError
from deploykit.graph.graph import Graph
from deploykit.lowering import ExportOptions, lower_exactly, plan_export
from deploykit.network import LoadedNetwork
from deploykit.recipe import Recipe
from deploykit.records import ExportPlan, TensorRecord
from deploykit.targets.base import Array
from deploykit.targets.table import part, require, target_of
from deploykit.targets.traced import Arithmetic, NotTracedError, Trace
from deploykit.verify.reparam import training_graph
from deploykit.verify.samples import Sample, feed
from deploykit.vocab import InputKind, Precision, Target


def attribute(
    network: LoadedNetwork,
    path: Path,
    samples: Sequence[Sample],
    plan: ExportPlan | None = None,
    *,
    precision: Precision = Precision.FP32,
    captured: Graph | None = None,
    inputs: Mapping[str, str] | None = None,
    outputs: Mapping[str, str] | None = None,
    step: Callable[[str], None] | None = None,
) -> Attribution:
    """Return the error of the file at ``path`` by module of ``network``, the worst of ``samples`` in each cell.

    ``plan`` is that of the file's manifest; without one it follows from the file's suffix, what it takes and
    ``precision``. ``captured`` saves capturing the network again. ``inputs`` and ``outputs`` map names in the file to
    names in the recipe where they differ.

    Raises:
        TargetError: the target is not installed.
        ArtifactError: the file cannot be run, or takes other inputs than the recipe's.
        CaptureError: the network cannot be captured.
    """
    say = step or (lambda message: None)
    recipe, target = network.recipe, target_of(path)
    require(target)
    runner = _Runner(path, target, recipe, inputs or {}, outputs or {})
    asked = plan or _plan_of_a_converter(recipe, target, precision, runner.input_kind)
    say("lowering the network in float64")
    lowered = Lowered(lower_exactly(captured or training_graph(network), recipe, asked), asked.precision)
    runner.check(lowered)
    fits: dict[str, Fit] = {}
    ambiguous: tuple[str, ...] = ()
    found: dict[str, list[_One]] = {}
    first: _Runs | None = None
    for sample in samples:
        say(f"{sample.name}: running the file")
        runs = runner.run(sample)
        given = lowered.given(sample, recipe)
        if first is None:
            say(f"{sample.name}: matching its values to the network's")
            alignment = align(lowered, runs.file, given)
            fits, ambiguous, first = alignment.fits, alignment.ambiguous, runs
        say(f"{sample.name}: measuring the error of each value")
        for name, one in _measure(lowered, runs, given, fits).items():
            found.setdefault(name, []).append(one)
    assert first is not None
    between = segments(lowered, fits)
    nodes = {node.name: node for node in lowered.nodes}
    measured = [Measured(nodes[name], fits[name].value, between[name], *_worst(each)) for name, each in found.items()]
    made = rows(lowered, measured, fits)
    matchable = sum(node.varies and node.shape is not None for node in lowered.nodes)
    claimed = {fit.value for fit in fits.values()}
    return Attribution(
        artifact=path.name,
        target=target,
        precision=asked.precision,
        samples=tuple(sample.name for sample in samples),
        runtime=first.runtime.trace.executor if first.runtime else runner.name,
        reference_executor=first.reference.trace.executor if first.reference else None,
        rows=made,
        sentence=sentence(made, measured, asked.precision),
        matched=len(fits),
        unmatched=matchable - len(fits),
        ambiguous=len(ambiguous),
        file_values=len(first.file.values),
        unmatched_file_values=len(first.file.values) - len(claimed),
        not_available=first.missing,
        notes=first.notes,
    )


def _plan_of_a_converter(recipe: Recipe, target: Target, precision: Precision, kind: InputKind) -> ExportPlan:
    """Return the plan that comes nearest to what converters do by themselves: BatchNorm folded, nothing moved."""
    alone = ("fold_batch_norm", "merge_branches")
    return plan_export(recipe, target, ExportOptions(precision=precision, input_kind=kind, passes=alone))


@dataclass(frozen=True)
class _One:
    judgement: Judgement
    parts: Parts
    cause: Part | None


@dataclass(frozen=True)
class _Runs:
    """One sample run by both executors; ``missing`` says of a part that cannot be measured why."""

    runtime: File | None
    reference: File | None
    missing: dict[str, str]
    notes: tuple[str, ...]

    @property
    def file(self) -> File:
        """The values that count as the file's."""
        file = self.runtime or self.reference
        assert file is not None
        return file


class _Runner:
    def __init__(
        self, path: Path, target: Target, recipe: Recipe, inputs: Mapping[str, str], outputs: Mapping[str, str]
    ) -> None:
        self._path, self._target, self._recipe = path, target, recipe
        self._outputs = dict(outputs)
        with contained(), part(target, "runtime").open_artifact(path) as runtime:
            self.name: str = runtime.name
            self._records = tuple(replace(r, name=inputs.get(r.name, r.name)) for r in runtime.inputs)
            self._own = {inputs.get(r.name, r.name): r.name for r in runtime.inputs}

    @property
    def input_kind(self) -> InputKind:
        """What the file takes, from what it declares."""
        images = {item.name for item in self._recipe.file.inputs if item.kind == "image"}
        takes = any(record.name in images and _pixels(record) for record in self._records)
        return InputKind.IMAGE if takes else InputKind.TENSOR

    def check(self, lowered: Lowered) -> None:
        """Raise ArtifactError where the file takes other inputs than the graph."""
        wanted = {spec.name for spec in lowered.graph.inputs}
        if set(self._own) != wanted:
            raise ArtifactError(
                "The file takes other inputs than the recipe says.",
                where=str(self._path),
                found=", ".join(sorted(self._own)),
                expected=", ".join(sorted(wanted)),
                next_step="name the recipe that the file was made from with --recipe",
            )
        self._graph_inputs = {
            self._own[spec.name]: name for name, spec in zip(lowered.inputs, lowered.graph.inputs, strict=True)
        }

    def run(self, sample: Sample) -> _Runs:
        given = {self._own[name]: array for name, array in feed(sample, self._records, self._recipe).items()}
        missing: dict[str, str] = {}
        runtime = self._traced(given, Arithmetic.RUNTIME, missing)
        reference = self._traced(given, Arithmetic.REFERENCE, missing)
        if runtime is None and reference is None:
            raise NotTracedError(missing[Arithmetic.RUNTIME], where=str(self._path))
        reasons = {}
        if reference is None:
            reasons[Part.CONVERTER.value] = reasons[Part.KERNEL.value] = missing[Arithmetic.REFERENCE]
        elif runtime is None:
            reasons[Part.KERNEL.value] = missing[Arithmetic.RUNTIME]
        notes = [file.trace.note for file in (runtime, reference) if file is not None and file.trace.note]
        return _Runs(runtime, reference, reasons, tuple(dict.fromkeys(notes)))

    def _traced(self, given: Mapping[str, Array], arithmetic: Arithmetic, missing: dict[str, str]) -> File | None:
        try:
            with contained():
                trace: Trace = part(self._target, "traced").trace(self._path, given, arithmetic)
        except NotTracedError as error:
            missing[arithmetic] = error.message
            return None
        values = tuple(
            value if value.output is None else replace(value, output=self._outputs.get(value.output, value.output))
            for value in trace.values
        )
        return File(replace(trace, values=values), self._graph_inputs)


def _pixels(record: TensorRecord) -> bool:
    return record.dtype == "uint8"


def _measure(lowered: Lowered, runs: _Runs, given: Mapping[str, object], fits: dict[str, Fit]) -> dict[str, _One]:
    start = dict(given)
    parts = split(lowered, start, fits, runs.runtime, runs.reference)
    judged = {node.name: one for node, one in Walk(lowered, runs.file, start, fits).judgements()}
    specified: dict[str, Judgement] = {}
    if runs.runtime is not None and runs.reference is not None and not all(one.clean for one in judged.values()):
        specified = {node.name: one for node, one in Walk(lowered, runs.reference, start, fits).judgements()}
    return {
        name: _One(one, parts[name], None if one.clean else _cause(one, specified.get(name), runs))
        for name, one in judged.items()
    }


def _cause(judgement: Judgement, specified: Judgement | None, runs: _Runs) -> Part | None:
    """Return where the error of an accused value comes from; ``specified`` is the reference executor's at its place."""
    if math.isinf(judgement.explained):
        return Part.PRECISION
    if specified is not None:
        return Part.KERNEL if specified.clean else Part.CONVERTER
    return Part.CONVERTER if runs.runtime is None else None


def _worst(each: Sequence[_One]) -> tuple[Judgement, Parts, Part | None]:
    """Return the worst of every number over the samples."""
    worst = max(each, key=lambda one: one.judgement.ratio)
    judgement = Judgement(max(one.judgement.error for one in each), worst.judgement.explained, worst.judgement.ratio)

    def most(name: str) -> float | None:
        return max((value for one in each if (value := getattr(one.parts, name)) is not None), default=None)

    parts = Parts(most("cumulative") or 0.0, most("precision") or 0.0, most("converter"), most("kernel"))
    return judgement, parts, worst.cause

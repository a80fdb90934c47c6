"""A float file on disk becomes the same file in integers, measured on the runtime that will execute it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deploykit.artifact import hash_files
from deploykit.chatter import contained
from deploykit.errors import VerificationError
from deploykit.latency.machine import cpu_model
from deploykit.quantize.calibration import CalibrationSet
from deploykit.quantize.estimators import estimate, see
from deploykit.quantize.prepare import Prepared
from deploykit.quantize.search import keep_few
from deploykit.quantize.simulation import BEFORE
from deploykit.recipe import Recipe
from deploykit.records import ExportPlan, KeptLayer, Quantization, Trade
from deploykit.targets.base import Array
from deploykit.targets.quantized import Activation, QuantizedFile, Quantizer, Range
from deploykit.targets.schemes import precisions_of
from deploykit.targets.table import part
from deploykit.verify.contract import classes_in
from deploykit.verify.samples import Sample, feed, read_back
from deploykit.vocab import Precision

Say = Callable[[str], None]


@dataclass(frozen=True)
class FloatFile:
    """A float file, what its format can do with it, and what was decided before."""

    path: Path
    plan: ExportPlan
    recipe: Recipe
    prepared: Prepared
    quantizer: Quantizer


def float_plan(plan: ExportPlan) -> ExportPlan:
    """Return ``plan`` for the float file that its target's quantizer begins with; a float plan as it is."""
    if plan.precision.is_float:
        return plan
    precision: Precision = getattr(part(plan.target, "quantize"), "FLOAT_PRECISION", Precision.FP32)
    return replace(plan, precision=precision)


def quantize_file(
    path: Path,
    plan: ExportPlan,
    recipe: Recipe,
    prepared: Prepared,
    calibration: CalibrationSet | None,
    *,
    say: Say,
) -> Quantization:
    """Replace the float file ``path`` by the one in the integers of ``plan``; return how it came to them.

    Layers stay in float, the costliest first, until the masks of the judging images are within the plan's limit.
    Raises VerificationError where even all layers in float do not keep it.
    """
    quantizer: Quantizer = part(plan.target, "quantize")
    file = FloatFile(path, plan, recipe, prepared, quantizer)
    output = path.with_name(f"quantized-{path.name}")
    wanted = plan.quantization
    if calibration is None or wanted is None or not plan.precision.quantizes_activations:
        with contained():
            made = quantizer.quantize(path, output, plan.precision, ranges={})
        trades: tuple[Trade, ...] = ()
        if calibration is not None and wanted is not None:
            trades = (_trade(file, output, calibration, 0, made),)
            if wanted.max_drop is not None and trades[0].drop_points > wanted.max_drop:
                remove(output)
                raise _lost_too_much(file, trades)
        _replace(output, path)
        return replace(_record(file, made, calibration), trades=trades)
    with contained():
        activations = quantizer.activations(path, plan.precision)
    say(f"{plan.target}: calibrating on {len(calibration.ranges)} images")
    ranges = ranges_on(file, activations, calibration.ranges)
    layers = layers_of(activations, prepared)
    made_with: dict[int, QuantizedFile] = {}
    integers: dict[str, Any] = {"integer_io": True} if wanted.integer_io else {}
    border = _border(activations) if wanted.integer_io else set()

    def measure(count: int) -> Trade:
        say(f"{plan.target}: measuring with {count} of {prepared.layers} layers in float")
        kept = {one.layer for one in prepared.ranking[:count]} if count else set()
        names = {one.name for one in activations if one.quantizes and layers.get(one.name) in kept}
        # What is taken or returned as integers has to be computed in integers.
        names -= border
        remove(output)
        with contained():
            made_with[count] = quantizer.quantize(path, output, plan.precision, ranges=ranges, kept=names, **integers)
        return _trade(file, output, calibration, count, made_with[count])

    kept = keep_few(lambda: prepared.ranking, wanted.max_drop, measure)
    chosen = len(kept.layers)
    if not kept.reached and wanted.max_drop is not None:
        remove(output)
        raise _lost_too_much(file, kept.trades)
    if list(made_with)[-1] != chosen:
        measure(chosen)
    _replace(output, path)
    asked = {one.name for one in activations if layers.get(one.name) in {two.layer for two in kept.layers}}
    record = _record(file, made_with[chosen], calibration, asked)
    notes = (*record.notes, *_mostly_float(kept.layers, record.layers))
    return replace(record, kept=kept.layers, trades=kept.trades, notes=notes)


def _trade(file: FloatFile, output: Path, calibration: CalibrationSet, count: int, made: QuantizedFile) -> Trade:
    """Return what the file at ``output``, with ``count`` layers in float, loses on the judging images."""
    found = outputs_of(output, file.plan, file.recipe, calibration.judge)
    size = sum(item.size_bytes for item in hash_files(output))
    lost = drop_points(file.recipe, file.plan, found, file.prepared.reference)
    return Trade(count, lost, made.weight_bytes, size)


def _lost_too_much(file: FloatFile, trades: Sequence[Trade]) -> VerificationError:
    plan, wanted = file.plan, file.plan.quantization
    assert wanted is not None
    assert wanted.max_drop is not None
    best = min(trades, key=lambda one: one.drop_points)
    count = file.prepared.layers
    kept = f", with {best.kept} of {count} layers in float" if count else ""
    advice = ["leave --integer-io out"] if wanted.integer_io else []
    forced = [
        option
        for option, given in (("--estimator", wanted.estimator is not None), ("--equalize", wanted.equalization == 0))
        if given and plan.precision.quantizes_activations
    ]
    advice += [f"leave {' and '.join(forced)} out"] if forced else []
    finer = [
        str(one)
        for one in (Precision.W8A16, Precision.INT8_WEIGHTS)
        if one in precisions_of(plan.target) and plan.precision is Precision.INT8
    ]
    advice += [f"try --precision {' or '.join(finer)}"] if finer else []
    advice += ["see that the calibration images are photos of the kind it will meet", "allow more with --max-drop"]
    return VerificationError(
        "The masks do not survive these integers, whichever layers stay in float.",
        where=f"{file.recipe.name}, {plan.target} {plan.precision}",
        found=f"{best.drop_points:.4f} points of mIoU lost at best{kept}",
        expected=f"at most {wanted.max_drop:g} (--max-drop)",
        next_step="; ".join(advice),
    )


def _mostly_float(kept: Sequence[KeptLayer], layers: int) -> tuple[str, ...]:
    if 2 * len(kept) <= layers:
        return ()
    first = ", ".join(one.layer for one in kept[:3])
    return (
        f"{len(kept)} of {layers} layers take float activations ({first} and others): it is computed in integers "
        "only in part, and int8-weights would be as exact and simpler",
    )


def layers_of(activations: Sequence[Activation], prepared: Prepared) -> dict[str, str]:
    """Return the layer of each activation of a file, by name: its own origin's, else that of what it reads."""
    found: dict[str, str] = {}
    for one in activations:
        own = [prepared.layer_of[origin] for origin in one.origins if origin in prepared.layer_of]
        read = [found[name] for name in one.reads if name in found]
        found[one.name] = (own or read or [BEFORE])[0]
    return found


def _border(activations: Sequence[Activation]) -> set[str]:
    """Return what lies between the inputs of a file and its first layers, and from the last layers to its outputs."""
    known = {one.name: one for one in activations}
    readers: dict[str, list[str]] = {name: [] for name in known}
    for one in activations:
        for name in one.reads:
            readers.get(name, []).append(one.name)
    first = {one.name for one in activations if not one.operation}
    last = {name for name, own in readers.items() if not own}
    for found, onwards in ((first, readers), (last, {name: known[name].reads for name in known})):
        pending = list(found)
        while pending:
            name = pending.pop()
            if known[name].takes_weights:
                continue
            new = [one for one in onwards[name] if one in known and one not in found]
            found.update(new)
            pending += new
    return first | last


def drop_points(
    recipe: Recipe,
    plan: ExportPlan,
    found: Sequence[Mapping[str, Array]],
    reference: Sequence[Mapping[str, Array]],
) -> float:
    """Return how many points of mIoU the masks ``found`` lose against those of the ``reference``, over all images.

    Of outputs without classes it is the relative L2 error in percent. The worst output counts; values that are not
    finite lose everything.
    """
    worst = 0.0
    for output in recipe.deployed():
        pairs = [
            (np.asarray(a[output.name]), np.asarray(b[output.name])) for a, b in zip(found, reference, strict=True)
        ]
        if not all(np.isfinite(a).all() for a, _ in pairs):
            return 100.0
        if len(output.classes) > 1:
            ious = [_miou(classes_in(a, plan.output_kind), classes_in(b, plan.output_kind)) for a, b in pairs]
            worst = max(worst, 100 * (1 - float(np.mean(ious))))
        else:
            given, wanted = (np.concatenate([one.ravel() for one in side]) for side in zip(*pairs, strict=True))
            error, size = float(np.linalg.norm(given - wanted)), float(np.linalg.norm(wanted))
            worst = max(worst, 100 * error / max(size, 1e-30))
    return worst


def _miou(found: Array, expected: Array) -> float:
    """Return the mean IoU over the classes that either of two maps of classes has."""
    ious = []
    for one in np.union1d(found, expected):
        a, b = found == one, expected == one
        ious.append(float((a & b).sum() / (a | b).sum()))
    return float(np.mean(ious))


def ranges_on(file: FloatFile, activations: Sequence[Activation], images: Sequence[Sample]) -> dict[str, Range]:
    """Return the range of every activation that is quantized or read by one that is."""
    assert file.prepared.estimator is not None
    with contained(), part(file.plan.target, "runtime").open_artifact(file.path) as runtime:
        inputs = [feed(one, runtime.inputs, file.recipe) for one in images]
    known = {one.name for one in activations}
    wanted = {name for one in activations if one.quantizes for name in (one.name, *one.reads)} & known

    def runs() -> Iterator[Mapping[str, Array]]:
        return file.quantizer.observe(file.path, inputs, wanted)

    with contained():
        seen = see(runs)
    return {name: estimate(one, file.prepared.estimator) for name, one in seen.items()}


def outputs_of(path: Path, plan: ExportPlan, recipe: Recipe, samples: Sequence[Sample]) -> list[Mapping[str, Array]]:
    """Return what the file at ``path`` gives for each of ``samples`` on its runtime: output → array, NCHW."""
    with contained(), part(plan.target, "runtime").open_artifact(path) as runtime:
        return [read_back(runtime.run(feed(one, runtime.inputs, recipe)), runtime.outputs) for one in samples]


def _record(
    file: FloatFile, made: QuantizedFile, calibration: CalibrationSet | None, asked: Collection[str] = ()
) -> Quantization:
    prepared = file.prepared
    notes = [f"{one.name} stays in float: {one.reason}" for one in made.left_in_float if one.name not in asked]
    return Quantization(
        layers=prepared.layers,
        activations=made.activations,
        weights=made.weights,
        weight_bytes=made.weight_bytes,
        float_weight_bytes=made.float_weight_bytes * (2 if float_plan(file.plan).precision is Precision.FP16 else 1),
        processor=f"{cpu_model()}, {torch.backends.cpu.get_cpu_capability()}",
        calibration=None if calibration is None else calibration.record,
        estimator=prepared.estimator,
        equalization=prepared.equalization,
        corrected_biases=prepared.corrected_biases,
        shared=len(made.shared),
        notes=(*(calibration.record.notes if calibration else ()), *notes),
    )


def remove(path: Path) -> None:
    """Remove ``path``, a file or a package, where it is."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _replace(new: Path, old: Path) -> None:
    """Put ``new``, a file or a package, in the place of ``old``."""
    remove(old)
    new.rename(old)

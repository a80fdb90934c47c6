"""What each layer alone costs in integers: ranked by simulation, measured on the target's real file.

The float file is written once. For each layer it is quantized with all other layers left in float, their weights too,
and run on the judging images.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from deploykit.chatter import contained
from deploykit.errors import UsageError
from deploykit.graph.graph import Graph
from deploykit.lowering import finish
from deploykit.quantize.calibration import CalibrationSet
from deploykit.quantize.file import FloatFile, drop_points, float_plan, layers_of, outputs_of, ranges_on, remove
from deploykit.quantize.prepare import prepare
from deploykit.recipe import Recipe
from deploykit.records import Calibration, ExportPlan
from deploykit.targets.base import Array, ExportRequest
from deploykit.targets.quantized import Activation, Range
from deploykit.targets.table import TARGETS, part
from deploykit.vocab import Estimator, Precision, Target

Say = Callable[[str], None]
# Targets whose files run on a reference interpreter here: so many layers are measured unless asked for more.
MEASURED_BY_DEFAULT = {Target.COREML: 10, Target.COREAI: 10}
# Squares below this count as none: the SNR of equal outputs stays finite.
_NOTHING = 1e-30


@dataclass(frozen=True)
class Measured:
    """What integers cost on the file: points of mIoU lost against the float network, and the SNR in dB that is left.

    Both are those of the worst output over the judging images; of an output without classes the points are its relative
    L2 error in percent.
    """

    drop_points: float
    snr_db: float


@dataclass(frozen=True)
class LayerSensitivity:
    """One layer alone in integers.

    ``simulated_snr_db`` ranked it. ``operations`` counts what the file computes of it in integers; ``measured`` is
    None for a layer with none, and for one that was not among the worst asked for.
    """

    layer: str
    simulated_snr_db: float
    operations: int
    measured: Measured | None = None


@dataclass(frozen=True)
class Sensitivity:
    """The layers of one network on one target, the worst first: measured ones, then the others as simulated.

    ``whole`` is the file with every layer in integers. ``estimator`` and ``equalization`` are what ranges and channels
    were given.
    """

    recipe: str
    target: Target
    precision: Precision
    estimator: Estimator | None
    equalization: float
    corrected_biases: int
    calibration: Calibration
    whole: Measured
    layers: tuple[LayerSensitivity, ...]


def measure_sensitivity(
    exact: Graph,
    plan: ExportPlan,
    recipe: Recipe,
    calibration: CalibrationSet,
    *,
    metadata: Mapping[str, str],
    most: int | None = None,
    say: Say,
) -> Sensitivity:
    """Return what each layer of the float64 graph ``exact`` alone costs in the integers of ``plan``.

    ``most`` layers, the worst as simulated, are measured on the file; None takes all, or on targets that are slow
    here ``MEASURED_BY_DEFAULT``. Files are written to a temporary folder. Raises UsageError for a precision whose
    activations are no integers, TargetError where the target does not take the network.
    """
    check(plan.precision, most)
    prepared = prepare(exact, plan, recipe, calibration, say)
    with tempfile.TemporaryDirectory(prefix="deploykit-sensitivity-") as folder:
        path = Path(folder) / f"{recipe.name}{TARGETS[plan.target].suffix}"
        say(f"{plan.target}: converting")
        with contained():
            request = ExportRequest(finish(prepared.graph, plan), float_plan(plan), recipe, metadata)
            part(plan.target, "export").write(request, path)
        file = FloatFile(path, plan, recipe, prepared, part(plan.target, "quantize"))
        return _measure(file, calibration, MEASURED_BY_DEFAULT.get(plan.target) if most is None else most, say)


def check(precision: Precision, most: int | None) -> None:
    """Raise UsageError for a ``precision`` whose activations are no integers, and for no layers to measure."""
    if not precision.quantizes_activations:
        raise UsageError(
            "No activation becomes an integer, so that no layer costs more than its weights do.",
            where="--precision",
            found=str(precision),
            expected=" or ".join(one for one in Precision if one.quantizes_activations),
        )
    if most is not None and most < 1:
        raise UsageError("Too few layers to measure.", where="--layers", found=str(most), expected="1 or more")


def _measure(file: FloatFile, calibration: CalibrationSet, most: int | None, say: Say) -> Sensitivity:
    prepared, plan = file.prepared, file.plan
    with contained():
        activations = file.quantizer.activations(file.path, plan.precision)
    say(f"{plan.target}: calibrating on {len(calibration.ranges)} images")
    trial = _Trial(file, activations, ranges_on(file, activations, calibration.ranges), calibration)
    counts = Counter(trial.layer_of.get(one.name) for one in activations if one.quantizes)
    found = [LayerSensitivity(one.layer, one.alone_snr_db, counts[one.layer]) for one in prepared.ranking]
    chosen = [one for one in found if one.operations][:most]
    measured: list[tuple[Measured, LayerSensitivity]] = []
    for index, one in enumerate(chosen):
        say(f"{plan.target}: layer {index + 1} of {len(chosen)}, {one.layer}")
        alone = trial.run(one.layer)
        measured.append((alone, replace(one, measured=alone)))
    measured.sort(key=lambda pair: (-pair[0].drop_points, pair[0].snr_db))
    return Sensitivity(
        recipe=file.recipe.name,
        target=plan.target,
        precision=plan.precision,
        estimator=prepared.estimator,
        equalization=prepared.equalization,
        corrected_biases=prepared.corrected_biases,
        calibration=calibration.record,
        whole=trial.run(None),
        layers=(*(one for _, one in measured), *(one for one in found if one not in chosen)),
    )


class _Trial:
    """A calibrated float file, quantized again and again."""

    def __init__(
        self,
        file: FloatFile,
        activations: Sequence[Activation],
        ranges: Mapping[str, Range],
        calibration: CalibrationSet,
    ) -> None:
        self.layer_of = layers_of(activations, file.prepared)
        self._file, self._activations, self._ranges, self._images = file, activations, ranges, calibration.judge

    def run(self, layer: str | None) -> Measured:
        """Return what the file loses with ``layer`` alone in integers; with all of them for None."""
        file = self._file
        others = [one for one in self._activations if layer is not None and self.layer_of.get(one.name) != layer]
        output = file.path.with_name(f"quantized-{file.path.name}")
        remove(output)
        with contained():
            file.quantizer.quantize(
                file.path,
                output,
                file.plan.precision,
                ranges=self._ranges,
                kept={one.name for one in others if one.quantizes},
                kept_weights={one.name for one in others if one.takes_weights},
            )
        found = outputs_of(output, file.plan, file.recipe, self._images)
        reference = file.prepared.reference
        return Measured(drop_points(file.recipe, file.plan, found, reference), snr_db(found, reference))


def snr_db(found: Sequence[Mapping[str, Array]], reference: Sequence[Mapping[str, Array]]) -> float:
    """Return the SNR in dB of the outputs ``found`` against those of the ``reference``, of the worst output.

    Squares are summed over all images. Values that are not finite leave -inf.
    """
    ratios = []
    for name in reference[0]:
        error = signal = 0.0
        for one, expected in zip(found, reference, strict=True):
            wanted = np.asarray(expected[name], dtype=np.float64)
            error += float(((np.asarray(one[name], dtype=np.float64) - wanted) ** 2).sum())
            signal += float((wanted**2).sum())
        ratios.append(10 * np.log10(max(signal, _NOTHING) / max(error, _NOTHING)) if np.isfinite(error) else -np.inf)
    return float(min(ratios))

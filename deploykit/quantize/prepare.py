"""What is done to a network before its numbers become integers, chosen by measurement in simulation.

Channels are equalized, biases corrected, an estimator is chosen, and the layers are ranked by what each of them alone
costs in integers. The graph stays in float64: the file is written from it as any other, and then quantized.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from deploykit.errors import VerificationError
from deploykit.graph.graph import Graph
from deploykit.graph.passes import correct_biases as correcting
from deploykit.graph.passes.correct_biases import correct_biases
from deploykit.graph.passes.equalize_channels import equalize_channels
from deploykit.lowering import finish
from deploykit.quantize.calibration import CalibrationSet
from deploykit.quantize.estimators import Seen
from deploykit.quantize.simulation import Simulation, ranges_of
from deploykit.recipe import Recipe
from deploykit.records import ExportPlan, KeptLayer
from deploykit.targets.base import Array
from deploykit.verify.graph_inputs import graph_inputs
from deploykit.vocab import Estimator, Precision, Target

Say = Callable[[str], None]
# Exponents of the scales to try: channels as they are, half way, and alike.
STRENGTHS = (0.0, 0.5, 1.0)
# Simulating costs a run of PyTorch for each image: so many of them tell the choices apart.
MOST_SIMULATED = 4
# Targets that compute everything in integers, not the layers alone.
FULL_INTEGER = (Target.TFLITE,)


@dataclass(frozen=True)
class Prepared:
    """A graph ready to be written and quantized: its own rounding to float32 is still to come.

    ``layers`` is how many there are to rank. ``layer_of`` is node of the lowered graph → layer. ``reference`` is what
    the network gives on the judging images: output → array.
    """

    graph: Graph
    estimator: Estimator | None
    equalization: float
    corrected_biases: int
    layer_of: dict[str, str]
    reference: tuple[dict[str, Array], ...] = ()
    layers: int = 0
    rank: Callable[[], tuple[KeptLayer, ...]] = tuple

    @cached_property
    def ranking(self) -> tuple[KeptLayer, ...]:
        """The layers, the costliest in integers first; they are simulated one by one when this is first asked for."""
        return self.rank()


def prepare(exact: Graph, plan: ExportPlan, recipe: Recipe, calibration: CalibrationSet | None, say: Say) -> Prepared:
    """Return the float64 graph of ``plan`` with its channels equalized and its biases corrected, as the plan asks.

    What the plan leaves open is chosen by the SNR of the simulated outputs on the judging images. Precisions whose
    activations stay in float are not equalized: their weights have a scale for each channel already.
    """
    wanted = plan.quantization
    if wanted is None or calibration is None:
        return Prepared(exact, None, 0.0, 0, {})
    images = [graph_inputs(exact, recipe, one, torch.float32) for one in calibration.ranges]
    # Both kinds, where they differ: harsh pictures that stretch the ranges, and plain ones that do not fill them.
    mixed = (*calibration.judge[: MOST_SIMULATED // 2], *calibration.ranges[: MOST_SIMULATED // 2])
    judging = [graph_inputs(exact, recipe, one, torch.float32) for one in mixed]
    _require_finite(exact, images, recipe)
    everything = plan.target in FULL_INTEGER
    first = Simulation(exact, everything=everything)
    expected = [first.outputs(one, {}, ()) for one in judging]
    strengths: tuple[float, ...] = (0.0,)
    if plan.precision is Precision.INT8:
        strengths = STRENGTHS if wanted.equalization is None else (wanted.equalization,)
    estimators = tuple(Estimator) if wanted.estimator is None else (wanted.estimator,)
    channels, largest = None, {}
    if strengths != (0.0,):
        say("measuring the channels")
        quantized = first.read_by_layers()
        channels = first.channels(images)
        largest = {name: value for name, value in channels.largest.items() if everything or name in quantized}
    reference = tuple(_named(exact, graph_inputs(exact, recipe, one)) for one in calibration.judge)
    best: tuple[float, Prepared, dict[str, Seen], Simulation] | None = None
    for strength in strengths:
        say(f"simulating integers, channels equalized by {strength:g}")
        graph = equalize_channels(exact, largest, strength) if strength else exact
        if wanted.correct_biases:
            as_it_is = channels if graph is exact else None
            graph = correct_biases(graph, (as_it_is or Simulation(graph).channels(images)).means)
        simulation = Simulation(finish(graph, plan), everything=everything)
        corrected = len(graph.report(correcting.NAME).fired)
        if not plan.precision.quantizes_activations:
            return Prepared(graph, None, strength, corrected, {}, reference)
        seen = simulation.seen(images)
        for estimator in estimators:
            snr_db = simulation.snr_db(judging, ranges_of(seen, estimator), expected=expected)
            if best is None or snr_db > best[0]:
                found = Prepared(graph, estimator, strength, corrected, simulation.layer_of, reference)
                best = (snr_db, found, seen, simulation)
    assert best is not None
    _, found, seen, simulation = best

    def ranked() -> tuple[KeptLayer, ...]:
        say("ranking the layers")
        return rank(simulation, judging, seen, found.estimator, expected)

    return replace(found, layers=len(simulation.layers), rank=ranked)


def _named(graph: Graph, inputs: Sequence[Tensor]) -> dict[str, Array]:
    return {name: value.numpy() for name, value in zip(graph.outputs, graph.run(*inputs), strict=True)}


def rank(
    simulation: Simulation,
    judging: Sequence[Sequence[Tensor]],
    seen: dict[str, Seen],
    estimator: Estimator | None,
    expected: Sequence[Sequence[np.ndarray]],
) -> tuple[KeptLayer, ...]:
    """Return the layers with the SNR that each alone leaves in integers, the worst first."""
    assert estimator is not None
    ranges = ranges_of(seen, estimator)
    alone = simulation.snr_db_alone(judging, ranges, expected)
    return tuple(sorted((KeptLayer(*one) for one in alone.items()), key=lambda one: one.alone_snr_db))


def _require_finite(graph: Graph, images: Sequence[Sequence[Tensor]], recipe: Recipe) -> None:
    for inputs in images:
        if not all(bool(torch.isfinite(one).all()) for one in graph.run(*(x.double() for x in inputs))):
            raise VerificationError(
                "The network gives values that are not finite on a calibration image: no range follows from them.",
                where=recipe.name,
                next_step="look at deploykit verify-reparam",
            )

"""How unlike the ranges of a layer's channels are: what one scale for all of them costs, and equalization works on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, fx

from deploykit.graph.graph import Graph, constant, is_call
from deploykit.graph.layers import TRANSPOSED, groups_of
from deploykit.quantize.calibration import calibration_set
from deploykit.quantize.simulation import LAYERS, Simulation
from deploykit.recipe import Recipe
from deploykit.verify.graph_inputs import graph_inputs

IMAGES = 8
# Below this share of the widest channel one holds nothing: in the public SINet such weights are near 1e-40.
DEAD = 1e-6


@dataclass(frozen=True)
class LayerRanges:
    """One layer of the deploy form. A ratio is that of the largest range of a channel to the median one.

    ``weight_ratio``: largest magnitudes of the weights of each output channel. ``activation_ratio``: of what the layer
    gives on the images, before the activation function; None for values without channels. ``dead`` counts the channels
    below ``DEAD`` of the widest in weights or activations, which the ratios leave out.
    """

    layer: str
    operation: str
    channels: int
    weight_ratio: float
    activation_ratio: float | None
    dead: int


def layer_ranges(deploy: Graph, recipe: Recipe, folder: Path | None = None) -> tuple[LayerRanges, ...]:
    """Return the ranges of every layer with stored weights in ``deploy``, in order, on ``IMAGES`` images.

    The images are those of ``folder``, without one synthetic portraits. Raises as ``calibration_set``.
    """
    images = calibration_set(recipe, folder, IMAGES)
    simulation = Simulation(deploy)
    given = [graph_inputs(deploy, recipe, one, torch.float32) for one in (*images.ranges, *images.judge)]
    largest = simulation.channels(given).largest
    return tuple(_layers(simulation, largest))


def _layers(simulation: Simulation, largest: dict[str, Tensor]) -> Iterator[LayerRanges]:
    for node in simulation.module.graph.nodes:
        weight = constant(simulation.module, node.args[1]) if is_call(node, *LAYERS) else None
        if weight is None:
            continue
        weights = _by_channel(node, weight)
        values = largest.get(node.name)
        activations = values if values is not None and values.numel() == weights.numel() else None
        living = _living(weights) if activations is None else _living(weights) & _living(activations)
        yield LayerRanges(
            layer=simulation.layer_of[node.name],
            operation=str(node.target).removeprefix("aten.").partition(".")[0],
            channels=weights.numel(),
            weight_ratio=_ratio(weights[living]),
            activation_ratio=None if activations is None else _ratio(activations[living]),
            dead=int((~living).sum()),
        )


def _by_channel(node: fx.Node, weight: Tensor) -> Tensor:
    """Return the largest magnitude of the weights of each output channel, (C,)."""
    if is_call(node, *TRANSPOSED):
        groups = groups_of(node)
        return weight.abs().reshape(groups, weight.shape[0] // groups, weight.shape[1], -1).amax((1, 3)).flatten()
    return weight.abs().flatten(1).amax(1)


def _living(ranges: Tensor) -> Tensor:
    return (ranges > DEAD * ranges.max()) & (ranges > 0)


def _ratio(ranges: Tensor) -> float:
    return float(ranges.max() / ranges.quantile(0.5)) if ranges.numel() else 1.0

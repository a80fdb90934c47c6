"""The inputs that a block's bounds are for: what was observed on samples, widened."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from deploykit.certificate.records import Box
from deploykit.graph.graph import Graph
from deploykit.recipe import Recipe
from deploykit.verify.reference import as_tensors
from deploykit.verify.samples import Sample

SIDE, LEAST = 0.25, 1e-3
WIDENING = (
    "per channel the range of values over the samples, computed in float64; each side moved outwards by a quarter "
    "of its width or by a thousandth of its largest magnitude, whichever is more, and rounded outwards to 4 digits"
)
DIGITS = 4


class _Ranges(fx.Interpreter):
    """Runs a graph and keeps the least and largest value per channel of some nodes."""

    def __init__(self, graph: Graph, channel_axes: Mapping[fx.Node, int]) -> None:
        super().__init__(graph.module)
        self.channel_axes = channel_axes
        self.ranges: dict[str, tuple[Tensor, Tensor]] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run one node; note the range of its value."""
        value = super().run_node(n)
        if n in self.channel_axes:
            axis = self.channel_axes[n] % value.dim()
            others = [other for other in range(value.dim()) if other != axis]
            low, high = (value.amin(others), value.amax(others)) if others else (value, value)
            if n.name in self.ranges:
                low, high = torch.minimum(low, self.ranges[n.name][0]), torch.maximum(high, self.ranges[n.name][1])
            self.ranges[n.name] = low, high
        return value


def observe(
    graph: Graph, channel_axes: Mapping[fx.Node, int], recipe: Recipe, samples: Sequence[Sample]
) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Return node name → least and largest value per channel over ``samples``, in float64."""
    recording = _Ranges(graph, channel_axes)
    with torch.no_grad():
        for sample in samples:
            recording.run(*as_tensors(sample, recipe, torch.float64))
    return {name: (low.double().numpy(), high.double().numpy()) for name, (low, high) in recording.ranges.items()}


def widened(low: NDArray[np.float64], high: NDArray[np.float64]) -> Box:
    """Return the box around an observed range, as ``WIDENING`` says."""
    margin = np.maximum(SIDE * (high - low), LEAST * np.maximum(np.abs(low), np.abs(high)))
    return Box(
        tuple(-rounded_up(-float(value)) for value in low - margin),
        tuple(rounded_up(float(value)) for value in high + margin),
    )


def rounded_up(value: float) -> float:
    """Return the least number of 4 significant digits that is not below ``value``."""
    if value == 0 or not math.isfinite(value):
        return value
    unit = math.floor(math.log10(abs(value))) - DIGITS + 1
    text = float(f"{value:.{DIGITS - 1}e}")
    return text if text >= value else float(f"{text + 10.0**unit:.{DIGITS - 1}e}")


def inner_float32(box: Box) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the least and the largest float32 inside each channel's range."""
    lower, upper = np.array(box.lower), np.array(box.upper)
    low, high = lower.astype(np.float32), upper.astype(np.float32)
    low = np.where(low < lower, np.nextafter(low, np.float32(np.inf)), low)
    high = np.where(high > upper, np.nextafter(high, np.float32(-np.inf)), high)
    return low, high


def magnitudes(box: Box) -> NDArray[np.float64]:
    """Return the largest absolute value per channel in the box; zero padding is never larger."""
    found: NDArray[np.float64] = np.maximum(np.abs(np.array(box.lower)), np.abs(np.array(box.upper)))
    return found


def sample_hashes(samples: Iterable[Sample]) -> dict[str, str]:
    """Return name → SHA-256 of the input values, in the order of the inputs' names."""
    found = {}
    for sample in samples:
        digest = hashlib.sha256()
        for name in sorted(sample.tensors):
            digest.update(np.ascontiguousarray(sample.tensors[name], dtype="<f4").tobytes())
        found[sample.name] = digest.hexdigest()
    return found

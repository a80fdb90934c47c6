"""Measure one block: training form and folded layer on seeded inputs inside its box."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from deploykit.certificate.blocks import Replaced, evaluate, inside
from deploykit.certificate.box import inner_float32
from deploykit.certificate.expression import is_shape_free
from deploykit.certificate.layer import LINEAR
from deploykit.certificate.records import Box, Measured
from deploykit.graph.graph import shape_of

SEED = 4
# Enough for the border on each side and an inside between them; a whole picture shows nothing more.
SMALLEST = 16

Array = NDArray[np.float64]


def measure(
    module: fx.GraphModule,
    block: Replaced,
    weights: Mapping[str, tuple[Array, Array]],
    box: Box,
    bounds: Sequence[float],
) -> Measured:
    """Return the errors of ``block`` on one input inside its box and one at its corners.

    ``module`` is the training form in float64. ``weights`` holds weight and bias as ``folded`` by the passes and as
    ``recomputed`` from the state dict.
    """
    folded, recomputed = weights["folded"], weights["recomputed"]
    by_name = {node.name: node for node in module.graph.nodes}
    nodes = set[fx.Node]().union(*(inside(by_name[term.value], block.source) for term in block.terms))
    shape = _shape(block, is_shape_free(nodes))
    largest = difference = worst = share = 0.0
    for x in _inputs(shape, box, block.layer.kind):
        parts = [term.factor * evaluate(module, by_name[term.value], block.source, x.double()) for term in block.terms]
        truth = torch.stack(parts).sum(0)
        difference = max(difference, float((_run(block, x.double(), folded) - truth).abs().max()))
        largest = max(largest, float(truth.abs().max()))
        exact = _run(block, x.double(), recomputed)
        with _plain_convolutions():
            single = _run(block, x, (folded[0].astype(np.float32), folded[1].astype(np.float32)))
        errors = _per_channel((single.double() - exact).abs(), block.layer.kind)
        worst = max(worst, float(errors.max()))
        share = max(share, _share(errors.numpy(), np.array(bounds)))
    return Measured(
        float64_error=_ratio(difference, largest),
        fold_error=max(_distance(one, other) for one, other in zip(folded, recomputed, strict=True)),
        float32_error=worst,
        share_of_bound=share,
    )


def _shape(block: Replaced, shape_free: bool) -> tuple[int, ...]:
    """Return the shape of the source, cut down where the block computes the same on a smaller picture."""
    shape = shape_of(block.source)
    assert shape is not None
    if not shape_free or len(shape) != 2 + len(block.layer.stride):
        return shape
    kernel = shape_of(block.node.args[1])
    assert kernel is not None
    sizes = []
    for size, taps, stride, spread in zip(shape[2:], kernel[2:], block.layer.stride, block.layer.dilation, strict=True):
        wanted = max(SMALLEST, 3 * (spread * (taps - 1) + 1))
        # The same remainder by the stride, so that all terms keep one size.
        sizes.append(size - (size - wanted) // stride * stride if size > wanted else size)
    return (*shape[:2], *sizes)


def _inputs(shape: tuple[int, ...], box: Box, kind: str) -> Iterator[Tensor]:
    """Yield one input of values inside the box and one of its corners, float32."""
    rng = np.random.default_rng([SEED, math.prod(shape)])
    axis = len(shape) - 1 if kind == LINEAR else 1
    low, high = (one.reshape([-1 if place == axis else 1 for place in range(len(shape))]) for one in inner_float32(box))
    spread = low + (high - low) * rng.random(shape, dtype=np.float32)
    yield torch.from_numpy(np.clip(spread, low, high))
    yield torch.from_numpy(np.where(rng.random(shape) < 0.5, low, high))


def _run(block: Replaced, x: Tensor, weights: tuple[NDArray[np.floating], NDArray[np.floating]]) -> Tensor:
    """Return what the folded layer gives for ``x`` with ``weights``."""
    node = block.node
    weight, bias = (torch.from_numpy(np.ascontiguousarray(one)) for one in weights)
    rest = {key: value for key, value in node.kwargs.items() if key not in ("input", "weight", "bias")}
    assert callable(node.target)
    with torch.no_grad():
        result = node.target(x, weight, bias, *node.args[3:], **rest)
    assert isinstance(result, Tensor)
    return result


@contextmanager
def _plain_convolutions() -> Iterator[None]:
    """Compute convolutions as the sums that they are defined by: the bounds are not for Winograd's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # setting the flags warns about other hardware
        with torch.backends.mkldnn.flags(enabled=False), torch.backends.nnpack.flags(enabled=False):
            yield


def _per_channel(errors: Tensor, kind: str) -> Tensor:
    axis = errors.dim() - 1 if kind == LINEAR else 1
    return errors.movedim(axis, 0).flatten(1).amax(1)


def _share(errors: Array, bounds: Array) -> float:
    if not len(bounds):
        return math.inf
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = np.where(errors == 0, 0.0, errors / bounds)
    return float(shares.max())


def _distance(one: Array, other: Array) -> float:
    return _ratio(float(np.abs(one - other).max()), float(np.abs(other).max()))


def _ratio(part: float, whole: float) -> float:
    if not math.isfinite(part):
        return math.inf
    return part / whole if whole > 0 else (0.0 if part == 0 else math.inf)

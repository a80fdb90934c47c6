"""Round: float64 weights become float32, once, after every pass; what rounding costs is measured."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from deploykit.errors import VerificationError
from deploykit.graph.capture import cast_graph, weights
from deploykit.graph.graph import Graph, Recorder

NAME = "round"

OVERFLOW = "{count} of {total} values overflow float32"
SUBNORMAL = "{count} of {total} values are subnormal in float32"
ZERO = "{count} of {total} values become zero in float32"

_FLOAT32 = torch.finfo(torch.float32)


def round_weights(graph: Graph) -> Graph:
    """Return a float32 copy of the float64 ``graph``, its weights rounded once to the nearest value.

    The report says how many values were rounded and the worst relative error among the normal ones. A weight
    with values that overflow, become subnormal or vanish is listed, with their count.

    Raises:
        VerificationError: a normal value moved by more than half a unit in the last place of float32.
    """
    rounded = cast_graph(graph, torch.float32)
    recorder = Recorder(NAME)
    after = weights(rounded)
    worst, total = 0.0, 0
    for path, value in weights(graph).items():
        if value.dtype != torch.float64:
            continue
        total += value.numel()
        worst = max(worst, _relative_error(value, after[path]))
        for reason in _out_of_range(value):
            recorder.skipped(path, reason)
    if worst > _FLOAT32.eps / 2:
        raise VerificationError(
            "Weights moved further than rounding to float32 explains.",
            where=NAME,
            found=f"relative error {worst:.3g}",
            expected=f"at most {_FLOAT32.eps / 2:.3g}, half a unit in the last place",
        )
    recorder.fired((), f"{total} values rounded to float32, relative error at most {worst:.3g}")
    return recorder.finish(rounded)


def rounding_error(exact: Graph, rounded: Graph, inputs: Sequence[Tensor]) -> dict[str, float]:
    """Return output name → relative L2 error of ``rounded`` in float32 against ``exact`` in float64 on ``inputs``.

    An output that is not finite counts as an infinite error.
    """
    expected = exact.run(*(x.double() for x in inputs))
    found = rounded.run(*(x.float() for x in inputs))
    return {
        name: _relative_l2(value.double(), reference)
        for name, reference, value in zip(exact.outputs, expected, found, strict=True)
    }


def _relative_l2(value: Tensor, reference: Tensor) -> float:
    error = float(torch.linalg.vector_norm(value - reference))
    if error == 0:
        return 0.0
    norm = float(torch.linalg.vector_norm(reference))
    return error / norm if math.isfinite(error) and norm > 0 else math.inf


def _relative_error(value: Tensor, rounded: Tensor) -> float:
    magnitude = value.abs()
    normal = (magnitude >= _FLOAT32.tiny) & (magnitude <= _FLOAT32.max)
    if not bool(normal.any()):
        return 0.0
    return float(((rounded.double() - value).abs() / magnitude)[normal].max())


def _out_of_range(value: Tensor) -> list[str]:
    magnitude = value.abs()
    rounded = magnitude.float()
    cases = (
        (OVERFLOW, rounded.isinf() & magnitude.isfinite()),
        (SUBNORMAL, (rounded > 0) & (rounded < _FLOAT32.tiny)),
        (ZERO, (rounded == 0) & (magnitude > 0)),
    )
    counts = ((reason, int(where.sum())) for reason, where in cases)
    return [reason.format(count=count, total=value.numel()) for reason, count in counts if count]

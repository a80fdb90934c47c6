"""A large constant that is added, such as a grid of pixel positions, is stored as the few rows and columns it repeats.

Algebra: where each slice of C along one axis repeats along some axis, ``C = Σ Aₚ``: Aₚ holds, once along p, the slices
that repeat along p, and zeros in the others. So ``x + C = (x + A₁) + A₂``, exactly: at each place one of them is not
zero. A grid of 128 x 128 positions is 512 numbers instead of 32,768, for one more addition.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx

from deploykit.graph.graph import (
    Graph,
    Recorder,
    add_weight,
    aten,
    calls,
    constant,
    erase_unread,
    module_path,
    shape_of,
    sources,
    stamp,
    stand_for,
    weight_path,
    with_rewrite,
)

NAME = "split_constant_sums"

# Below so many numbers a constant is not worth another operation.
FEWEST = 4096
# And one that keeps more of them than this neither.
MOST_KEPT = 0.25
NOT_REPEATED = "its slices repeat along no axis"


def split_constant_sums(graph: Graph) -> Graph:
    """Return ``graph`` with every large repeating constant that is added to a tensor stored once along each axis."""
    return with_rewrite(graph, NAME, rewrite)


def rewrite(module: fx.GraphModule, recorder: Recorder) -> None:
    """Split the constants of ``module`` in place; note each, and those that repeat along no axis."""
    for node in list(calls(module.graph, aten.add.Tensor)):
        given = [one for one in node.args if isinstance(one, fx.Node)]
        fixed = [one for one in given if constant(module, one) is not None]
        if len(given) != 2 or len(fixed) != 1 or node.kwargs.get("alpha", 1) != 1:
            continue
        value = constant(module, fixed[0])
        (x,) = [one for one in given if one is not fixed[0]]
        if value is None or value.numel() < FEWEST or not value.is_floating_point():
            continue
        parts = repeated_parts(value)
        # Parts are smaller than the sum: what is left has to have its shape already.
        if parts is None or shape_of(x) != shape_of(node):
            recorder.skipped(module_path(node), NOT_REPEATED)
            continue
        made_from = sources(node)
        result = x
        for index, part in enumerate(parts):
            with module.graph.inserting_before(node):
                stored = add_weight(module, weight_path(node, f"positions_{index}"), part, node)
                result = stamp(module.graph.call_function(aten.add.Tensor, (result, stored)), node)
                if index < len(parts) - 1:
                    stand_for(result, None, made_from)
        node.replace_all_uses_with(result)
        erase_unread(module, node)
        recorder.fired(made_from, f"{value.numel()} numbers as {sum(part.numel() for part in parts)}")


def repeated_parts(value: Tensor) -> tuple[Tensor, ...] | None:
    """Return tensors whose sum, broadcast, is ``value`` exactly; None where that would not save most of its numbers."""
    for axis in range(value.dim()):
        found: dict[int, Tensor] = {}
        for index, one in enumerate(value.unbind(axis)):
            along = _repeats_along(one.unsqueeze(axis), axis)
            if along is None:
                break
            whole = found.setdefault(along, torch.zeros_like(value.narrow(along, 0, 1)))
            whole.select(axis, index).copy_(one.unsqueeze(axis).narrow(along, 0, 1).select(axis, 0))
        else:
            if sum(part.numel() for part in found.values()) <= MOST_KEPT * value.numel():
                return tuple(found[along] for along in sorted(found))
    return None


def _repeats_along(slice_: Tensor, but: int) -> int | None:
    """Return the longest axis, other than ``but``, along which ``slice_`` is one value; None where there is none."""
    axes = [axis for axis in range(slice_.dim()) if axis != but and slice_.shape[axis] > 1]
    for axis in sorted(axes, key=lambda one: -slice_.shape[one]):
        if bool((slice_ == slice_.narrow(axis, 0, 1)).all()):
            return axis
    return None

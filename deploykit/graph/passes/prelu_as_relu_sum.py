"""PReLU of an image becomes ``relu(x · (1 - a)) + x · a``, or ``relu(x) · (1 - a) + x · a`` where a slope exceeds 1.

Algebra: where x > 0 the sum is ``x - a·x + a·x``, elsewhere ``a·x``, the first for any slope a up to 1 and the second
for any at all. ONNX Runtime has no blocked kernel for PRelu, so that each one also costs two changes of layout. The
products are depthwise 1x1 convolutions in the blocked layout: it computes a ReLU after the first as a part of it, and
the sum as a part of the second. A ReLU of x itself stays alone, since x is read twice. ``max(x, a·x)`` is slower there,
and wrong for slopes above 1.
"""

from __future__ import annotations

from torch import Tensor, fx

from deploykit.graph.graph import (
    Graph,
    Recorder,
    add_weight,
    aten,
    calls,
    constant,
    module_path,
    shape_of,
    sources,
    stamp,
    stand_for,
    weight_path,
)

NAME = "prelu_as_relu_sum"

RANK = 4
# The two summands cancel where x > 0: each doubling of the slope costs a bit.
STEEPEST = 16.0

FORM = "relu(x · (1 - a)) + x · a"
STEEPER_FORM = "relu(x) · (1 - a) + x · a"

COMPUTED = "the slopes are computed, not stored"
NOT_AN_IMAGE = "the value has {rank} axes, not 4: too small to be worth it"
ONE_PIXEL = "one value for each channel: three operations more cost more than a change of layout"
NOT_STATIC = "the size is not static"
STEEP = f"a slope is steeper than {STEEPEST:g}: the two summands would cancel"


def prelu_as_relu_sum(graph: Graph) -> Graph:
    """Return ``graph`` with every PReLU of an image (N, C, H, W) written as a sum of two products of x."""
    graph = graph.copy()
    record = Recorder(NAME)
    for node in calls(graph.module.graph, aten.prelu.default):
        slopes, shape = constant(graph.module, node.args[1]), shape_of(node)
        reason = _why_not(slopes, shape)
        if reason or slopes is None:
            record.skipped(module_path(node), reason)
            continue
        inside = bool((slopes <= 1).all())
        node.replace_all_uses_with(_sum(graph.module, node, slopes.reshape(1, -1, 1, 1), inside))
        record.fired([module_path(node)], FORM if inside else STEEPER_FORM)
    return record.finish(graph)


def _why_not(slopes: Tensor | None, shape: tuple[int, ...] | None) -> str:
    if slopes is None:
        return COMPUTED
    if shape is None:
        return NOT_STATIC
    if len(shape) != RANK:
        return NOT_AN_IMAGE.format(rank=len(shape))
    if shape[2:] == (1, 1):
        return ONE_PIXEL
    # A slope that is no number fails the comparison too.
    return "" if bool((slopes.abs() <= STEEPEST).all()) else STEEP


def _sum(module: fx.GraphModule, node: fx.Node, slopes: Tensor, inside: bool) -> fx.Node:
    """Return the sum, whose first product is ``inside`` the ReLU or outside."""
    x = node.args[0]
    above = add_weight(module, weight_path(node, "above"), 1 - slopes, node)
    below = add_weight(module, weight_path(node, "below"), slopes, node)
    graph = module.graph
    with graph.inserting_before(node):
        if inside:
            inner = graph.call_function(aten.mul.Tensor, (x, above))
            first = graph.call_function(aten.relu.default, (inner,))
        else:
            inner = graph.call_function(aten.relu.default, (x,))
            first = graph.call_function(aten.mul.Tensor, (inner, above))
        second = graph.call_function(aten.mul.Tensor, (x, below))
        total = graph.call_function(aten.add.Tensor, (first, second))
    for part in (inner, first, second):
        stand_for(stamp(part, node), None, sources(node))
    return stamp(total, node)

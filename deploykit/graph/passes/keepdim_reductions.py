"""A reduction whose axis is put back later becomes one that keeps it, and an expand before broadcasting goes away.

Algebra: ``unsqueeze(f(max(x, d)), d) = f(max(x, d, keepdim=True))`` for every pointwise ``f`` with one tensor
input, ``f(expand(x)) = expand(f(x))`` likewise, and ``expand(x) * y = x * y`` where ``y`` has the full shape.
TFLite's converter loses the axis in its change of layout and refuses the operation that follows.
"""

from __future__ import annotations

import operator
from typing import Any

from torch import fx

from deploykit.graph.graph import (
    Graph,
    Recorder,
    argument,
    aten,
    calls,
    drop_dead_code,
    is_call,
    module_path,
    shape_of,
    sources,
    stamp,
    stand_for,
    with_rewrite,
)

NAME = "keepdim_reductions"

_POINTWISE = (
    aten.rsub.Scalar, aten.neg.default, aten.sigmoid.default, aten.relu.default, aten.exp.default,
    aten.add.Scalar, aten.sub.Scalar, aten.mul.Scalar, aten.div.Scalar,
    aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor,
)  # fmt: skip
_BROADCASTING = (
    aten.mul.Tensor, aten.add.Tensor, aten.sub.Tensor, aten.div.Tensor, aten.maximum.default, aten.minimum.default,
)  # fmt: skip
_REDUCTIONS = (aten.amax.default, aten.amin.default, aten.mean.dim, aten.sum.dim_IntList)


def keepdim_reductions(graph: Graph) -> Graph:
    """Return ``graph`` with the rewrites of this module done wherever they hold exactly."""
    return with_rewrite(graph, NAME, rewrite)


def rewrite(module: fx.GraphModule, record: Recorder) -> None:
    """Do the rewrites in ``module``, in place."""
    _values_of_max(module.graph)
    node: Any
    for node in calls(module.graph, aten.unsqueeze.default):
        _keep(module.graph, node, record)
    for node in calls(module.graph, aten.expand.default):
        _lower_expand(module.graph, node, record)
    drop_dead_code(module.graph)


def _values_of_max(graph: fx.Graph) -> None:
    """Write ``max(x, d)[0]`` whose indices nobody reads as ``amax``."""
    names = {aten.max.dim: aten.amax.default, aten.min.dim: aten.amin.default}
    for node in calls(graph, operator.getitem):
        source: Any = node.args[0]
        if is_call(source, *names) and node.args[1] == 0 and len(source.users) == 1:
            keepdim = source.args[2] if len(source.args) > 2 else False
            with graph.inserting_before(node):
                value = graph.call_function(names[source.target], (source.args[0], [source.args[1]], keepdim))
            node.replace_all_uses_with(stamp(value, node))
            stand_for(value, node, sources(node))


def _keep(graph: fx.Graph, node: Any, record: Recorder) -> None:
    shape = shape_of(node)
    axis = int(node.args[1]) % len(shape) if shape else -1
    chain: list[Any] = []
    here: Any = node.args[0]
    while is_call(here, *_POINTWISE) and len(here.all_input_nodes) == 1 and len(here.users) == 1:
        chain.append(here)
        here = here.all_input_nodes[0]
    if not (is_call(here, *_REDUCTIONS) and len(here.users) == 1) or shape is None:
        return
    source = shape_of(here.args[0])
    axes: Any = argument(here, 1, "dim") or ()
    if not source or [int(a) % len(source) for a in axes] != [axis] or (len(here.args) > 2 and here.args[2]):
        record.skipped(module_path(node), "the axis put back is not the axis that was reduced")
        return
    here.args = (here.args[0], [axis], True, *here.args[3:])
    for link in (here, *chain):
        link.meta["val"] = link.meta["val"].unsqueeze(axis)
        stand_for(link, node if link is node.args[0] else None, sources(link))
    node.replace_all_uses_with(node.args[0])
    record.fired([module_path(here)], f"{here.target} keeps axis {axis}")


def _lower_expand(graph: fx.Graph, node: Any, record: Recorder) -> None:
    """Let pointwise readers of the expand come before it, and broadcasting ones do without it."""
    shape = shape_of(node)
    expands = [node]
    while expands and shape is not None:
        expand = expands.pop()
        source = expand.args[0]
        for reader in list(expand.users):
            if is_call(reader, *_POINTWISE) and reader.all_input_nodes == [expand]:
                expands.append(_before(graph, reader, expand, source, shape))
                record.fired([module_path(expand)], f"{reader.target} comes before the expand")
            elif _broadcasts(reader, expand, shape):
                reader.replace_input_with(expand, source)
                record.fired([module_path(expand)], f"{reader.target} broadcasts instead of an expand")
            else:
                record.skipped(module_path(expand), f"{reader.target} needs the expanded value")


def _before(graph: fx.Graph, reader: Any, expand: Any, source: Any, shape: tuple[int, ...]) -> Any:
    """Return the expand of ``reader`` of ``source``, which takes the place of ``reader`` of ``expand``."""
    with graph.inserting_after(reader):
        later = graph.call_function(aten.expand.default, (reader, list(shape)))
    reader.replace_all_uses_with(stamp(later, reader), delete_user_cb=lambda user: user is not later)
    reader.replace_input_with(expand, source)
    reader.meta["val"] = later.meta["val"].new_empty(source.meta["val"].shape)
    stand_for(later, reader, sources(reader))
    stand_for(reader, None, sources(reader))
    return later


def _broadcasts(reader: Any, expand: Any, shape: tuple[int, ...]) -> bool:
    """Whether ``reader`` is an operation of ``expand`` and a tensor that has the full ``shape`` by itself."""
    others = [arg for arg in reader.args if arg is not expand]
    return (
        is_call(reader, *_BROADCASTING)
        and bool(others)
        and all(isinstance(arg, fx.Node) and shape_of(arg) == shape for arg in others)
    )

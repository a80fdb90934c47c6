"""A reduction whose axis is put back later becomes one that keeps it, and an expand before broadcasting goes away.

Algebra: ``unsqueeze(f(max(x, d)), d) = f(max(x, d, keepdim=True))`` for every pointwise ``f`` with one tensor
input. ``f(expand(x)) = expand(f(x))`` likewise, and an ``expand`` that then meets only operations that broadcast to
the same shape changes nothing.
TFLite's converter loses the axis in its change of layout and refuses the product that follows.
"""

from __future__ import annotations

import operator
from typing import Any

from torch import fx

from deploykit.graph.graph import Graph, Recorder, argument, aten, calls, is_call, module_path, shape_of, stamp

NAME = "keepdim_reductions"

_POINTWISE = (
    aten.rsub.Scalar, aten.neg.default, aten.sigmoid.default, aten.relu.default, aten.exp.default,
    aten.add.Scalar, aten.sub.Scalar, aten.mul.Scalar, aten.div.Scalar,
    aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor,
)  # fmt: skip
_BROADCASTING = (aten.mul.Tensor, aten.add.Tensor, aten.sub.Tensor, aten.div.Tensor)
_REDUCTIONS = (aten.amax.default, aten.amin.default, aten.mean.dim, aten.sum.dim_IntList)


def keepdim_reductions(graph: Graph) -> Graph:
    """Return ``graph`` with the rewrites of this module done wherever they hold exactly."""
    graph = graph.copy()
    record = Recorder(NAME)
    _values_of_max(graph.module.graph)
    node: Any
    for node in calls(graph.module.graph, aten.unsqueeze.default):
        _keep(graph.module.graph, node, record)
    for node in calls(graph.module.graph, aten.expand.default):
        _drop_expand(node, record)
    return record.finish(graph)


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
    node.replace_all_uses_with(node.args[0])
    record.fired([module_path(here)], f"{here.target} keeps axis {axis}")


def _drop_expand(node: Any, record: Recorder) -> None:
    links: list[Any] = []
    meetings: list[tuple[Any, Any]] = []
    pending = [node]
    while pending:
        current = pending.pop()
        for reader in current.users:
            if is_call(reader, *_POINTWISE) and reader.all_input_nodes == [current]:
                links.append(reader)
                pending.append(reader)
            else:
                meetings.append((reader, current))
    small = {node, *links}
    for reader, value in meetings:
        if not _broadcasts(reader, value, shape_of(node)) or small.issuperset(reader.all_input_nodes):
            record.skipped(module_path(node), f"{reader.name} reads the expanded value and does not broadcast it")
            return
    source = node.args[0]
    for link in links:
        link.meta["val"] = link.meta["val"].new_empty(shape_of(source))
    node.replace_all_uses_with(source)
    record.fired([module_path(node)], "expand left to broadcasting")


def _broadcasts(reader: Any, value: Any, shape: tuple[int, ...] | None) -> bool:
    """Whether ``reader`` is an operation of ``value`` and a tensor that has the full ``shape`` by itself."""
    others = [arg for arg in reader.args if arg is not value]
    return (
        shape is not None
        and is_call(reader, *_BROADCASTING)
        and bool(others)
        and all(isinstance(arg, fx.Node) and shape_of(arg) == shape for arg in others)
    )

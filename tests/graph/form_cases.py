"""What every pass that only changes the form of a construct has to keep: values, shapes, types, origins."""

from __future__ import annotations

import torch
from graph_cases import BOUND, relative_l2
from torch import fx

from deploykit.graph.capture import cast_graph
from deploykit.graph.graph import Graph, Pass, sources


class _Shapes(fx.Interpreter):
    """Runs a graph and compares what each node says of its value with the value."""

    def run_node(self, n: fx.Node) -> object:
        value = super().run_node(n)
        if isinstance(value, torch.Tensor) and "val" in n.meta:
            stated = n.meta["val"]
            assert (tuple(stated.shape), stated.dtype) == (tuple(value.shape), value.dtype), n.name
        return value


def same_form_twice(rewrite: Pass, before: Graph, *shape: int) -> Graph:
    """``before`` rewritten, after checking that it is equal, untouched, true to its notes and final."""
    text = str(before.module.graph)
    after = rewrite(before)
    assert str(before.module.graph) == text
    assert after.reports[-1].fired
    assert relative_l2(before, after, *shape) <= BOUND
    _Shapes(after.module).run(torch.randn(*shape, dtype=torch.float64))
    known = {path for node in before.module.graph.nodes if node.op == "call_function" for path in sources(node)}
    for node in after.module.graph.nodes:
        if node.op == "call_function":
            assert set(sources(node)) <= known, node.name
    again = rewrite(after)
    assert again.reports[-1].fired == ()
    assert str(again.module.graph) == str(after.module.graph)
    # On float32 weights, as after rounding, everything stays float32.
    single = rewrite(cast_graph(before, torch.float32))
    _Shapes(single.module).run(torch.randn(*shape))
    return after


def damaged(graph: Graph, name: str) -> Graph:
    """A copy of ``graph`` whose weight called ``name`` (the end of its path) is in another order: the negative twin."""
    copied = graph.copy()
    (path,) = [path for path, _ in copied.module.named_parameters() if path.endswith(name)]
    weight = copied.module.get_parameter(path)
    weight.data = weight.data.flatten().roll(1).reshape(weight.shape)
    return copied

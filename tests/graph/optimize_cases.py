"""What the tests of optimization check of every network: equal, recorded, idempotent, deterministic, no dearer."""

from __future__ import annotations

import torch
from graph_cases import BOUND
from torch import Tensor, fx

from deploykit.graph.cost import graph_cost
from deploykit.graph.graph import Graph, aten
from deploykit.graph.value_map import value_map
from deploykit.vocab import Convention


class _Values(fx.Interpreter):
    def __init__(self, graph: Graph) -> None:
        super().__init__(graph.module)
        self.found: dict[fx.Node, object] = {}

    def run_node(self, n: fx.Node) -> object:
        self.found[n] = super().run_node(n)
        return self.found[n]


def values_of(graph: Graph, x: Tensor) -> dict[fx.Node, object]:
    """Node → what it computes for ``x``."""
    interpreter = _Values(graph)
    with torch.no_grad():
        interpreter.run(x)
    return interpreter.found


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def recorded(node: fx.Node) -> str | None:
    """The name of the captured value that ``node`` stands for; None where it stands for none."""
    note = node.meta.get("custom", {}).get("deploykit")
    return node.name if note is None else note.get("value")


def wrong_records(captured: Graph, after: Graph, x: Tensor) -> list[str]:
    """The values of ``after`` whose record does not give the captured value, or has another shape than computed.

    A scale divides again: the error of a value counts in proportion to what it was before that.
    """
    truth = {node.name: value for node, value in values_of(captured, x).items()}
    wrong = []
    for node, value in values_of(after, x).items():
        if node.op != "call_function" or not isinstance(value, Tensor):
            continue
        if tuple(node.meta["val"].shape) != tuple(value.shape):
            wrong.append(f"{node.name}: shape {tuple(value.shape)}, noted {tuple(node.meta['val'].shape)}")
        name, known = recorded(node), value_map(node)
        if name is None or not isinstance(truth.get(name), Tensor) or not value.is_floating_point():
            continue
        old, expected = known.old(value), truth[name]
        if old.shape != expected.shape:
            wrong.append(f"{node.name} for {name}: shape {tuple(old.shape)} for {tuple(expected.shape)}")
            continue
        if known.shape is not None:
            old, expected = (one.reshape(*one.shape[:2], 1, 1) for one in (old, expected))
        along = (-1, *(1 for _ in value.shape[2:]))
        factor = torch.ones(()) if known.scale is None else known.scale.abs().reshape(along)
        bound = BOUND * 10 * (expected.abs().max() + factor * (1 + value.abs().max()))
        gone = old.isnan()
        if not bool(((old - expected).abs() <= bound)[~gone].all()) or (known.order is None and bool(gone.any())):
            wrong.append(f"{node.name} for {name}: off by {float((old - expected)[~gone].abs().max()):.1e}")
    return wrong


def same(one: Graph, other: Graph) -> bool:
    """Whether two graphs have the same nodes and the same weights, bit by bit."""
    weights, others = one.module.state_dict(), other.module.state_dict()
    return (
        str(one.module.graph) == str(other.module.graph)
        and weights.keys() == others.keys()
        and all(torch.equal(weights[name], others[name]) for name in weights)
    )


def relative_error(captured: Graph, after: Graph, x: Tensor) -> float:
    """The worst relative error over the outputs of ``after``, which ``captured`` has among others."""
    names = dict(zip(captured.outputs, captured.run(x), strict=True))
    pairs = [(names[name], value) for name, value in zip(after.outputs, after.run(x), strict=True)]
    return max(float((one.double() - two.double()).norm() / (one.double().norm() + 1e-300)) for one, two in pairs)


def work(graph: Graph) -> int:
    """The multiply-accumulates of the layers, with the 4 for each value of a bilinear resize."""
    resizes = graph.module.graph.find_nodes(op="call_function", target=aten.upsample_bilinear2d.vec)
    return graph_cost(graph).macs[Convention.MACS] + 4 * sum(node.meta["val"].numel() for node in resizes)

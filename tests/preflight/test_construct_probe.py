"""What a converter takes an operation apart into, told by its own tables without converting."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from deploykit.graph.capture import capture
from deploykit.graph.graph import Graph, aten
from deploykit.preflight.probe import probe
from deploykit.targets.coverage import Coverage


class Network(nn.Module):
    def forward(self, x):
        y = torch.tanh(F.hardswish(x)) + torch.tanh(x[:, :, ::2].repeat(1, 1, 2, 1))
        values, positions = torch.topk(y, 2, 1)
        return values + positions.to(values.dtype), F.group_norm(y, 2)


@pytest.fixture(scope="module")
def graph() -> Graph:
    return capture(Network().eval(), [torch.zeros(1, 4, 6, 6)], (), ("sum", "norm"))


def by_operation(graph: Graph, coverage: Coverage) -> dict[str, set]:
    found: dict[str, set] = {}
    for node in graph.module.graph.nodes:
        if node.name in (parts := probe(graph, coverage)):
            found.setdefault(node.target._schema.name.removeprefix("aten::"), set()).add(parts[node.name])
    return found


def test_what_is_taken_as_it_is_counts_one(graph):
    found = by_operation(graph, Coverage("all", lambda operation: True, {}))
    assert {(parts.operations, parts.missing) for each in found.values() for parts in each} == {(1, ())}
    assert {"tanh", "hardswish", "topk", "group_norm", "slice"} <= set(found)


def test_what_is_taken_apart_is_counted_and_what_is_missing_is_named(graph):
    table = torch._decomp.core_aten_decompositions()
    refused = {aten.tanh.default, aten.native_group_norm.default}
    found = by_operation(graph, Coverage("some", lambda operation: operation not in refused, table))
    (tanh,) = found["tanh"]
    assert (tanh.operations, tanh.missing) == (1, ("aten.tanh.default",))
    (norm,) = found["group_norm"]
    assert norm.missing == ("aten.native_group_norm.default",)
    (swish,) = found["hardswish"]
    assert swish.missing == ()
    assert swish.operations > 2
    (largest,) = found["topk"]
    assert largest.missing == ()


def test_a_decomposition_that_refuses_is_an_answer_for_its_operation_alone(graph):
    def refuse(*args, **kwargs):
        raise NotImplementedError("not this one\nwith a long explanation")

    found = by_operation(graph, Coverage("fussy", lambda operation: True, {aten.hardswish.default: refuse}))
    (swish,) = found["hardswish"]
    assert swish.missing == ("aten.hardswish.default: not this one",)
    assert all(parts.missing == () for name, each in found.items() if name != "hardswish" for parts in each)

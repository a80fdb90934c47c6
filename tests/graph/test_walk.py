"""A walk over a graph gives what PyTorch's own interpreter gives, value by value, and lets values be replaced."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from targets.small_case import write_case
from torch import fx

from deploykit.graph.graph import Graph
from deploykit.graph.walk import Walk, compute_plainly
from deploykit.network import load_network
from deploykit.recipe import load_recipe
from deploykit.verify.reparam import training_graph


class Interpreted(fx.Interpreter):
    """PyTorch's interpreter, which keeps every value."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.found: dict[str, object] = {}

    def run_node(self, n: fx.Node) -> object:
        self.found[n.name] = super().run_node(n)
        return self.found[n.name]


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    """The captured training form of a small network: batch norms, softmax, a maximum, resizing, two outputs."""
    return training_graph(load_network(load_recipe(write_case(Path(tmp_path_factory.mktemp("walk"))))))


@pytest.fixture
def photo() -> torch.Tensor:
    return torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_every_value_is_that_of_the_interpreter(graph, photo):
    found = {}

    def compute(node, args, kwargs):
        found[node.name] = compute_plainly(node, args, kwargs)
        return found[node.name]

    walk, interpreted = Walk(graph.module), Interpreted(graph.module)
    with torch.no_grad():
        expected = interpreted.run(photo)
        for _ in range(2):
            for one, other in zip(walk.run([photo], compute), expected, strict=True):
                assert torch.equal(one, other)
    assert found
    for name, value in found.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, interpreted.found[name]), name


def test_a_replaced_value_goes_on_to_all_that_read_it(graph, photo):
    walk = Walk(graph.module)
    convolution = torch.ops.aten.conv2d.default

    def compute(node, args, kwargs):
        value = compute_plainly(node, args, kwargs)
        return torch.zeros_like(value) if node.target is convolution else value

    with torch.no_grad():
        plain, other = walk.run([photo]), walk.run([photo], compute)
    assert not any(torch.equal(one, two) for one, two in zip(plain, other, strict=True))
    assert [node.name for node in walk.placeholders] == ["x"]


def test_a_run_may_begin_in_the_middle_of_another(graph, photo):
    walk = Walk(graph.module)
    up = next(node for node in graph.module.graph.nodes if node.target is torch.ops.aten.conv_transpose2d.input)
    computed = []

    def compute(node, args, kwargs):
        computed.append(node)
        value = compute_plainly(node, args, kwargs)
        return 2 * value if node is up else value

    with torch.no_grad():
        plain, begun = walk.run([photo]), walk.begun([photo])
        for _ in range(2):
            scores, edge = walk.run_from(begun, [up], compute)
            assert torch.equal(scores, 2 * plain[0])
            assert torch.equal(edge, plain[1])
        assert walk.run_from(begun, [], compute)[0] is begun[list(graph.module.graph.nodes).index(up)]
    assert computed.index(up) == 0
    assert len(computed) < len(graph.module.graph.nodes)


def test_an_attribute_may_come_before_the_inputs():
    graph = fx.Graph()
    weight = graph.get_attr("weight")
    first, second = graph.placeholder("first"), graph.placeholder("second")
    product = graph.call_function(torch.ops.aten.mul.Tensor, (first, weight))
    both = graph.call_function(torch.ops.aten.cat.default, ([product, second], 1))
    graph.output((both, first))
    module = fx.GraphModule({"weight": torch.tensor(3.0)}, graph)
    one, two = torch.ones(1, 1), torch.zeros(1, 1)
    found, same = Walk(module).run([one, two])
    assert found.tolist() == [[3.0, 0.0]]
    assert same is one
    with pytest.raises(ValueError, match="zip"):
        Walk(module).run([one])

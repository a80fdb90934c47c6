"""A graph run node by node, with a look at, or another way to compute, every value.

``torch.fx.Interpreter`` does the same and spends half a millisecond on a node, more than most operations of a small
network take: networks that are run hundreds of times are resolved here once, and only their operations are left.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor, fx

Compute: TypeAlias = Callable[[fx.Node, tuple[Any, ...], dict[str, Any]], object]


@dataclass(frozen=True)
class _Value:
    """The value of a node, by its place in a run."""

    index: int


@dataclass(frozen=True)
class _Among:
    """A list or tuple with values of nodes in it."""

    items: tuple[object, ...]


@dataclass(frozen=True)
class _Step:
    """One operation: where its value goes, what it is called with, and which values nobody reads after it."""

    node: fx.Node
    index: int
    args: tuple[object, ...]
    kwargs: Mapping[str, object]
    done: tuple[int, ...]


class Walk:
    """A graph module of placeholders, attributes and function calls, resolved once and run as often as asked."""

    def __init__(self, module: fx.GraphModule) -> None:
        nodes = list(module.graph.nodes)
        places = {node: index for index, node in enumerate(nodes)}
        self.placeholders = tuple(node for node in nodes if node.op == "placeholder")
        self._inputs = tuple(places[node] for node in self.placeholders)
        self._size = len(nodes)
        self._constants = {places[one]: _attribute(module, str(one.target)) for one in nodes if one.op == "get_attr"}
        last: dict[int, fx.Node] = {}
        for node in nodes:
            for source in node.all_input_nodes:
                last[places[source]] = node
        self._steps = tuple(
            _Step(
                node,
                places[node],
                tuple(_template(one, places) for one in node.args),
                {key: _template(one, places) for key, one in node.kwargs.items()},
                tuple(index for index, reader in last.items() if reader is node and index not in self._constants),
            )
            for node in nodes
            if node.op == "call_function"
        )
        (output,) = (node for node in nodes if node.op == "output")
        self._result = _template(output.args[0], places)

    def run(self, inputs: Sequence[Tensor], compute: Compute | None = None) -> Any:
        """Return the outputs for ``inputs``; ``compute``, given a node and its arguments, returns the node's value."""
        values = self._beginning(inputs)
        self._go(self._steps, values, compute, keep=False)
        return _filled(self._result, values)

    def begun(self, inputs: Sequence[Tensor]) -> list[object]:
        """Return every value of a plain run, for ``run_from``."""
        values = self._beginning(inputs)
        self._go(self._steps, values, None, keep=True)
        return values

    def run_from(self, begun: Sequence[object], first: Collection[fx.Node], compute: Compute) -> Any:
        """Return the outputs of a run whose values are those ``begun`` up to the first of the nodes ``first``."""
        values = list(begun)
        start = next((place for place, step in enumerate(self._steps) if step.node in first), len(self._steps))
        self._go(self._steps[start:], values, compute, keep=False)
        return _filled(self._result, values)

    def _beginning(self, inputs: Sequence[Tensor]) -> list[object]:
        values: list[object] = [None] * self._size
        for index, value in self._constants.items():
            values[index] = value
        for index, given in zip(self._inputs, inputs, strict=True):
            values[index] = given
        return values

    def _go(self, steps: Sequence[_Step], values: list[object], compute: Compute | None, *, keep: bool) -> None:
        for step in steps:
            args = tuple(_filled(one, values) for one in step.args)
            kwargs = {key: _filled(one, values) for key, one in step.kwargs.items()}
            values[step.index] = (
                compute_plainly(step.node, args, kwargs) if compute is None else compute(step.node, args, kwargs)
            )
            for index in () if keep else step.done:
                values[index] = None


def compute_plainly(node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
    """Return what the operation of ``node`` gives for these arguments."""
    assert callable(node.target)
    return node.target(*args, **kwargs)


def _attribute(module: fx.GraphModule, path: str) -> object:
    found: object = module
    for name in path.split("."):
        found = getattr(found, name)
    return found


def _template(argument: object, places: Mapping[fx.Node, int]) -> object:
    """Return ``argument`` with the places of values instead of nodes."""
    if isinstance(argument, fx.Node):
        return _Value(places[argument])
    if isinstance(argument, (list, tuple)):
        items = tuple(_template(one, places) for one in argument)
        if any(isinstance(one, (_Value, _Among)) for one in items):
            return _Among(items)
    return argument


def _filled(template: object, values: Sequence[object]) -> Any:
    if type(template) is _Value:
        return values[template.index]
    if type(template) is _Among:
        return [_filled(one, values) for one in template.items]
    return template

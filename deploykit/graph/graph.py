"""The graph that every pass takes and returns, and the few primitives of rewriting it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor, fx, nn

from deploykit.records import Fired, PassReport, Skipped
from deploykit.vocab import TensorSpec

aten = torch.ops.aten


@dataclass(frozen=True)
class Graph:
    """A captured network: functional ATen operations, weights as attributes of ``module``.

    The weights are float64 until ``graph.round`` rounds them once. Each node keeps ``meta["nn_module_stack"]``,
    the path of the module that it came from, and ``meta["val"]``, a tensor without storage that has its shape.
    ``outputs`` names the results in order. ``reports`` holds one record per pass that ran.
    """

    module: fx.GraphModule
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[str, ...]
    reports: tuple[PassReport, ...] = ()

    def run(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs for ``inputs``, in the order of ``outputs``."""
        with torch.no_grad():
            result = self.module(*inputs)
        return tuple(result) if isinstance(result, (tuple, list)) else (result,)

    def copy(self) -> Graph:
        """Return an independent copy: nodes, metadata and weights."""
        return replace(self, module=copy.deepcopy(self.module))

    def report(self, name: str) -> PassReport:
        """Return the report of the pass called ``name``; an empty one where it did not run."""
        for report in self.reports:
            if report.name == name:
                return report
        return PassReport(name)


Pass: TypeAlias = Callable[[Graph], Graph]


class Recorder:
    """Collects what one pass did, for its report."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._fired: list[Fired] = []
        self._skipped: list[Skipped] = []

    def fired(self, modules: Sequence[str], detail: str) -> None:
        """Note one rewrite."""
        self._fired.append(Fired(tuple(modules), detail))

    def skipped(self, module: str, reason: str) -> None:
        """Note one place left alone."""
        self._skipped.append(Skipped(module, reason))

    def finish(self, graph: Graph) -> Graph:
        """Return ``graph`` cleaned of dead nodes and unread weights, with this report appended."""
        tidy(graph.module)
        report = PassReport(self.name, tuple(self._fired), tuple(self._skipped))
        return replace(graph, reports=(*graph.reports, report))


def is_call(node: object, *targets: object) -> bool:
    """Whether ``node`` calls one of the ATen overloads in ``targets``."""
    return isinstance(node, fx.Node) and node.op == "call_function" and node.target in targets


def calls(graph: fx.Graph, *targets: object) -> Iterator[fx.Node]:
    """Yield the nodes that call one of ``targets``, in order; the graph may be changed meanwhile."""
    for node in list(graph.nodes):
        if is_call(node, *targets):
            yield node


def argument(node: fx.Node, position: int, name: str, default: object = None) -> object:
    """Return an argument of ``node`` wherever it was given, or its schema's default."""
    if position < len(node.args):
        return node.args[position]
    return node.kwargs.get(name, default)


def module_path(node: fx.Node) -> str:
    """Return the path of the module whose forward made ``node``; its own name where none is known."""
    stack = node.meta.get("nn_module_stack")
    if stack:
        path = str(next(reversed(stack.values()))[0])
        return path.removeprefix("L['self'].").removeprefix("L__self__.") or "(root)"
    return str(node.meta.get("deploykit_module", node.name))


def constant(module: fx.GraphModule, node: object) -> Tensor | None:
    """Return the tensor behind a weight node, or None for anything that is computed."""
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    value: object = module
    for part in str(node.target).split("."):
        value = getattr(value, part, None)
    return value.detach() if isinstance(value, Tensor) else None


def shape_of(node: object) -> tuple[int, ...] | None:
    """Return the static shape of what ``node`` computes, or None where it is not one tensor of known shape."""
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    if not isinstance(value, Tensor) or not all(isinstance(size, int) for size in value.shape):
        return None
    return tuple(value.shape)


def add_weight(module: fx.GraphModule, path: str, tensor: Tensor, before: fx.Node) -> fx.Node:
    """Return a new weight node inserted before ``before`` that reads ``tensor``, stored under ``path``.

    A path that is taken gets a numbered suffix, since a weight may be shared by several calls.
    """
    taken = {name for name, _ in (*module.named_parameters(), *module.named_buffers())}
    name, count = path, 1
    while name in taken:
        count += 1
        name = f"{path}_{count}"
    *parents, leaf = name.split(".")
    holder: nn.Module = module
    for part in parents:
        child = getattr(holder, part, None)
        if not isinstance(child, nn.Module):
            child = nn.Module()
            holder.add_module(part, child)
        holder = child
    holder.register_parameter(leaf, nn.Parameter(tensor.detach().clone(), requires_grad=False))
    with module.graph.inserting_before(before):
        node = module.graph.get_attr(name)
    _stamp_value(node, tensor, before)
    return node


def _stamp_value(node: fx.Node, tensor: Tensor, neighbour: fx.Node) -> None:
    value = neighbour.meta.get("val")
    fake_mode = getattr(value, "fake_mode", None)
    node.meta["val"] = fake_mode.from_tensor(tensor) if fake_mode is not None else tensor.to("meta")


def stamp(node: fx.Node, like: fx.Node) -> fx.Node:
    """Return ``node`` with the shape and the origin of ``like``, which it stands for."""
    for key in ("val", "nn_module_stack", "stack_trace", "custom", "deploykit_module"):
        if key in like.meta:
            node.meta[key] = like.meta[key]
    return node


def tidy(module: fx.GraphModule) -> None:
    """Drop dead nodes, weights that no node reads and empty submodules of ``module``, and recompile it."""
    module.graph.eliminate_dead_code()
    read = {str(node.target) for node in module.graph.nodes if node.op == "get_attr"}
    for path, holder in list(module.named_modules()):
        prefix = f"{path}." if path else ""
        for store in (holder._parameters, holder._buffers):
            for leaf in [leaf for leaf in store if prefix + leaf not in read]:
                del store[leaf]
    for path in sorted((path for path, _ in module.named_modules() if path), key=lambda path: -path.count(".")):
        if not module.get_submodule(path).state_dict(keep_vars=True):
            parent, _, leaf = path.rpartition(".")
            delattr(module.get_submodule(parent), leaf)
    module.graph.lint()
    module.recompile()

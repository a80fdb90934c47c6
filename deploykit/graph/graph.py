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

# Where a node notes how the captured value follows from its own: graph/value_map.py.
VALUE_MAP = "deploykit_map"
LONGEST_EXPRESSION = 64


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
        module = fx.GraphModule(self.module, copy.deepcopy(self.module.graph))
        for holder in module.modules():
            for name, parameter in holder._parameters.items():
                if parameter is not None:
                    holder._parameters[name] = nn.Parameter(parameter.detach().clone(), requires_grad=False)
            for name, buffer in holder._buffers.items():
                if buffer is not None:
                    holder._buffers[name] = buffer.clone()
        return replace(self, module=module)

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

    def report(self) -> PassReport:
        """Return what was noted so far."""
        return PassReport(self.name, tuple(self._fired), tuple(self._skipped))

    def finish(self, graph: Graph) -> Graph:
        """Return ``graph`` cleaned of dead nodes and unread weights, with this report appended."""
        tidy(graph.module)
        return replace(graph, reports=(*graph.reports, self.report()))


def with_rewrite(graph: Graph, name: str, rewrite: Callable[[fx.GraphModule, Recorder], None]) -> Graph:
    """Return a copy of ``graph`` that ``rewrite`` changed in place, tidied, with the report of the pass ``name``."""
    copied = graph.copy()
    recorder = Recorder(name)
    rewrite(copied.module, recorder)
    return recorder.finish(copied)


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


def pair(value: object) -> tuple[int, int]:
    """Return a size along height and width, as operations take it: one number for both, a list of one or of two."""
    numbers: tuple[int, ...] = tuple(value) if isinstance(value, (list, tuple)) else (value,)  # type: ignore[assignment]
    return numbers[0], numbers[-1]


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


def computed_constant(module: fx.GraphModule, node: object) -> Tensor | None:
    """Return what ``node`` computes where it is a short expression of weights alone, or None.

    Nothing random is computed, and nothing longer than ``LONGEST_EXPRESSION`` nodes.
    """
    if not isinstance(node, fx.Node):
        return None
    found: set[fx.Node] = set()
    pending = [node]
    while pending:
        current = pending.pop()
        is_computed = is_pure(current) and bool(current.all_input_nodes)
        if not (current.op == "get_attr" or is_computed) or len(found) == LONGEST_EXPRESSION:
            return None
        found.add(current)
        pending.extend(source for source in current.all_input_nodes if source not in found)
    return _evaluate(module, node)


def is_pure(node: fx.Node) -> bool:
    """Whether ``node`` calls an ATen operation whose result follows from its arguments alone, and changes none."""
    target = node.target
    return (
        node.op == "call_function"
        and isinstance(target, torch._ops.OpOverload)
        and torch.Tag.nondeterministic_seeded not in target.tags
        and not target._schema.is_mutable
    )


def _evaluate(module: fx.GraphModule, node: fx.Node) -> Tensor | None:
    if node.op == "get_attr":
        return constant(module, node)
    assert callable(node.target)
    values = {source: _evaluate(module, source) for source in node.all_input_nodes}
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda source: values[source])
    result: object = node.target(*args, **kwargs)
    return result if isinstance(result, Tensor) else None


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
    name, count = path, 1
    while _is_taken(module, name):
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
    node.meta["val"] = torch.empty_like(tensor, device="meta")
    return node


def _is_taken(module: nn.Module, path: str) -> bool:
    holder: object = module
    for part in path.split("."):
        holder = getattr(holder, part, None)
    return holder is not None


_ORIGIN = ("val", "nn_module_stack", "stack_trace", "custom", "deploykit_module", VALUE_MAP)


def stamp(node: fx.Node, like: fx.Node, keys: Sequence[str] = _ORIGIN) -> fx.Node:
    """Return ``node`` with the shape and the origin of ``like``, or only the ``keys`` of its metadata."""
    for key in keys:
        if key in like.meta:
            node.meta[key] = like.meta[key]
    return node


def weight_path(node: fx.Node, leaf: str) -> str:
    """Return where a weight of ``node`` called ``leaf`` is stored: below the module that made the node."""
    path = module_path(node)
    return leaf if path == "(root)" else f"{path}.{leaf}"


def sources(node: fx.Node) -> tuple[str, ...]:
    """Return the paths of all modules that ``node`` was made from: its own, or those that a pass noted."""
    noted = node.meta.get("custom", {}).get("deploykit", {}).get("modules")
    return tuple(noted) if noted else (module_path(node),)


def stand_for(node: fx.Node, original: fx.Node | None, modules: Sequence[str]) -> None:
    """Note in ``node.meta["custom"]`` which ``modules`` made it, and that its value is that of ``original``.

    The note is plain JSON and survives a further ``torch.export``: ``stands_for`` is the module path of the old
    value and ``value`` the name of its node in the captured graph. A node that stands for no old value has
    ``modules`` alone. How the old value follows from that of ``original`` (``graph.value_map``) holds for ``node``.
    """
    note: dict[str, object] = {"modules": list(dict.fromkeys(modules))}
    if original is not None:
        earlier = original.meta.get("custom", {}).get("deploykit")
        if earlier is None:
            note |= {"stands_for": module_path(original), "value": original.name}
        elif "value" in earlier:
            note |= {key: earlier[key] for key in ("stands_for", "value")}
    node.meta["custom"] = {**node.meta.get("custom", {}), "deploykit": note}
    node.meta[VALUE_MAP] = None if original is None else original.meta.get(VALUE_MAP)


def erase_unread(module: fx.GraphModule, *nodes: object) -> None:
    """Erase those of ``nodes`` that nothing reads, then whatever only they read, with weights left unread."""
    pending = list(nodes)
    while pending:
        node = pending.pop()
        if not isinstance(node, fx.Node) or node._erased or node.users or node.op not in {"call_function", "get_attr"}:
            continue
        pending.extend(node.all_input_nodes)
        module.graph.erase_node(node)
        if node.op == "get_attr" and all(n.target != node.target for n in module.graph.find_nodes(op="get_attr")):
            parent, _, leaf = str(node.target).rpartition(".")
            delattr(module.get_submodule(parent), leaf)


def drop_dead_code(graph: fx.Graph) -> None:
    """Erase every node that nothing reads. A captured graph is functional: not even a random operation is kept."""
    graph.eliminate_dead_code(is_impure_node=lambda node: node.op in {"placeholder", "output"})


def tidy(module: fx.GraphModule) -> None:
    """Drop dead nodes, weights that no node reads and empty submodules of ``module``, and recompile it."""
    drop_dead_code(module.graph)
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

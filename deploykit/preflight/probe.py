"""What a converter takes each operation of a graph apart into, and what of that it does not know.

Every distinct operation is put beside the others in one program, with inputs of its own. The program goes through the
converter's decompositions; what arrives at an operation's output is what stands for it. Nothing is converted.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx, nn

from deploykit.chatter import contained
from deploykit.graph.graph import Graph
from deploykit.targets.coverage import Coverage

Key: TypeAlias = tuple[object, ...]
# Checks and bookkeeping that every converter drops.
_DROPPED = ("_assert_tensor_metadata", "_assert_async", "_assert_scalar", "sym_constrain_range")


@dataclass(frozen=True)
class Parts:
    """What stands for one operation: how many ``operations``, and which of them are ``missing`` in the converter."""

    operations: int
    missing: tuple[str, ...]


def probe(graph: Graph, coverage: Coverage) -> dict[str, Parts]:
    """Return name of a node → its parts, for every ATen call of ``graph``."""
    nodes = [node for node in graph.module.graph.nodes if _is_aten(node)]
    distinct: dict[Key, fx.Node] = {}
    for node in nodes:
        distinct.setdefault(_key(node), node)
    apart = {key: node for key, node in distinct.items() if not _known(node, coverage)}
    parts = {key: Parts(1, ()) for key in distinct if key not in apart}
    parts.update(zip(apart, _taken_apart(list(apart.values()), coverage), strict=True))
    return {node.name: parts[_key(node)] for node in nodes}


def _is_aten(node: fx.Node) -> bool:
    return node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload)


def _known(node: fx.Node, coverage: Coverage) -> bool:
    target = node.target
    assert isinstance(target, torch._ops.OpOverload)
    return target not in coverage.decompositions and coverage.takes(target)


def _key(node: fx.Node) -> Key:
    """Return what decides how a converter takes ``node`` apart: tensors by their type and how many axes they have."""
    arguments = fx.node.map_arg((node.args, node.kwargs), _described)
    return (node.target, str(arguments))


def _described(node: fx.Node) -> Any:
    value = node.meta.get("val")
    return f"{value.dtype} of {value.dim()}" if isinstance(value, Tensor) else node.name


def _taken_apart(nodes: Sequence[fx.Node], coverage: Coverage) -> list[Parts]:
    """Return the parts of each of ``nodes``: together where that works, else one by one."""
    if not nodes:
        return []
    try:
        return _parts(nodes, coverage)
    except Exception as error:
        # What the converter's own decompositions raise is its answer for the one operation that they raise it for.
        if len(nodes) > 1:
            middle = len(nodes) // 2
            return _taken_apart(nodes[:middle], coverage) + _taken_apart(nodes[middle:], coverage)
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return [Parts(1, (f"{nodes[0].target}: {reason[:120]}",))]


def _parts(nodes: Sequence[fx.Node], coverage: Coverage) -> list[Parts]:
    module, examples = _side_by_side(nodes)
    with contained(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(module, examples, strict=False)
        program = program.run_decompositions(dict(coverage.decompositions))
    results = {spec.arg.name: index for index, spec in enumerate(program.graph_signature.output_specs)}
    output = program.graph.output_node().args[0]
    assert isinstance(output, tuple)
    assert len(results) <= len(output)
    groups = module.meta["results"]
    found, position = [], 0
    for count in groups:
        found.append(_counted(output[position : position + count], coverage))
        position += count
    return found


def _counted(results: Sequence[object], coverage: Coverage) -> Parts:
    """Return what leads to ``results``, which reads the inputs of one operation alone."""
    reached: set[fx.Node] = set()
    pending = [result for result in results if isinstance(result, fx.Node)]
    while pending:
        node = pending.pop()
        if node not in reached:
            reached.add(node)
            pending.extend(node.all_input_nodes)
    calls = [node for node in reached if _is_aten(node) and not _is_dropped(node)]
    missing = {str(node.target) for node in calls if not coverage.takes(node.target)}  # type: ignore[arg-type]
    return Parts(len(calls), tuple(sorted(missing)))


def _is_dropped(node: fx.Node) -> bool:
    return str(node.target).removeprefix("aten.").startswith(_DROPPED)


def _side_by_side(nodes: Sequence[fx.Node]) -> tuple[fx.GraphModule, tuple[Tensor, ...]]:
    """Return a module that makes each of ``nodes`` from inputs of its own, and zeros for these inputs."""
    made, examples, results = fx.Graph(), [], []
    counts = []
    for index, node in enumerate(nodes):
        inputs: dict[fx.Node, fx.Node] = {}
        for source in node.all_input_nodes:
            inputs[source] = made.placeholder(f"input_{index}_{len(inputs)}")
            value = source.meta["val"]
            examples.append(torch.zeros(value.shape, dtype=value.dtype))
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), inputs.__getitem__)
        assert callable(node.target)
        call = made.call_function(node.target, args, kwargs)
        value = node.meta.get("val")
        several = [call] if isinstance(value, Tensor) or value is None else _results(made, call, node)
        results += several
        counts.append(len(several))
    made.output(tuple(results))
    module = fx.GraphModule(nn.Module(), made)
    module.meta["results"] = counts
    return module, tuple(examples)


def _results(made: fx.Graph, call: fx.Node, node: fx.Node) -> list[fx.Node]:
    """Return the results of an operation that has several: those that the network reads."""
    read = sorted({int(user.args[1]) for user in node.users if user.target is operator.getitem})  # type: ignore[arg-type]
    return [made.call_function(operator.getitem, (call, index)) for index in read]

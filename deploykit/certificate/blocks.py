"""Find the blocks of a deploy graph, and for each the part of the training graph that it replaces."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from deploykit.certificate.layer import Layer, read_layer
from deploykit.certificate.records import Term
from deploykit.errors import VerificationError
from deploykit.graph.graph import Graph, argument, aten, computed_constant, constant, is_call, module_path, shape_of
from deploykit.graph.passes.drop_unused_outputs import drop_unused_outputs
from deploykit.graph.passes.remove_no_ops import remove_no_ops


@dataclass(frozen=True)
class Replaced:
    """``node`` of the deploy graph computes, from the value ``source``, the sum of ``terms`` of the training graph.

    ``name`` is the path of the module whose place the layer takes, or of the first one that it was made from where
    the network itself adds the terms; it is numbered where a module is called twice.
    """

    name: str
    node: fx.Node
    layer: Layer
    source: fx.Node
    terms: tuple[Term, ...]
    modules: tuple[str, ...]


def without_no_ops(training: Graph, outputs: Sequence[str]) -> Graph:
    """Return ``training`` without operations that change nothing and without what the deployed ``outputs`` need not.

    Folding and merging start from this graph: here a value has exactly the readers that count.
    """
    return drop_unused_outputs(remove_no_ops(training), outputs)


def find_blocks(training: Graph, deploy: Graph) -> tuple[Replaced, ...]:
    """Return every folded or merged layer of ``deploy`` in order, traced back to ``training`` without no-ops.

    Raises VerificationError where a layer cannot be traced back: then nothing about it could be certified.
    """
    nodes = {node.name: node for node in training.module.graph.nodes}
    found: list[Replaced] = []
    calls: Counter[str] = Counter()
    for node in deploy.module.graph.nodes:
        note = _note(node)
        layer = read_layer(node) if note else None
        if note and layer is not None:
            source = nodes.get(_origin(node.args[0]))
            terms = _terms(node, training, nodes)
            if source is None or not terms:
                raise VerificationError(
                    "A folded layer cannot be traced back to the training form; nothing was certified.",
                    where=", ".join(note["modules"]),
                    found=f"{node.target} on {node.args[0]}",
                )
            place = str(node.meta["custom"]["deploykit"].get("stands_for", module_path(node)))
            path = note["modules"][0] if place == "(root)" else place
            calls[path] += 1
            name = path if calls[path] == 1 else f"{path} #{calls[path]}"
            found.append(Replaced(name, node, layer, source, terms, tuple(note["modules"])))
    return tuple(found)


def _note(node: fx.Node) -> dict[str, list[str]]:
    note: dict[str, list[str]] = node.meta.get("custom", {}).get("deploykit", {})
    return note if note.get("modules") else {}


def _origin(node: object) -> str:
    assert isinstance(node, fx.Node)
    return str(node.meta.get("custom", {}).get("deploykit", {}).get("value", node.name))


def _terms(node: fx.Node, training: Graph, nodes: dict[str, fx.Node]) -> tuple[Term, ...]:
    """Return what ``node`` stands for: one value, or those terms of a sum that merged while others stayed."""
    if _has_value(node):
        return (Term(_origin(node), 1.0),)
    total, stayed = node, []
    while not _has_value(total):
        before, (total,) = total, total.users
        stayed += [one for one in total.all_input_nodes if one is not before and not _is_merged(one)]
    factors = sum_terms(training.module, nodes[_origin(total)])
    for operand in stayed:
        factors.pop(nodes[_origin(operand)], None)
    partners = {nodes[_origin(one.args[0])] for one in _merged_into(total)}
    source = nodes[_origin(node.args[0])]
    own = [leaf for leaf in factors if _reached(training.module, leaf, partners) == source]
    return tuple(Term(leaf.name, factors[leaf]) for leaf in own)


def _is_merged(node: fx.Node) -> bool:
    """Whether ``node`` is a merged layer whose value the training graph never had: other terms stayed beside it."""
    return bool(_note(node)) and not _has_value(node)


def _merged_into(total: fx.Node) -> Iterable[fx.Node]:
    """Yield the merged layers without a value of their own that the sum ``total`` adds."""
    pending = list(total.all_input_nodes)
    while pending:
        node = pending.pop()
        if _is_merged(node):
            yield node
        elif is_call(node, aten.add.Tensor, aten.sub.Tensor) and not _has_value(node):
            pending.extend(node.all_input_nodes)


def _has_value(node: fx.Node) -> bool:
    return "value" in node.meta.get("custom", {}).get("deploykit", {})


def sum_terms(module: fx.GraphModule, root: fx.Node) -> dict[fx.Node, float]:
    """Return the terms of the sum that ends in ``root`` with their factors."""
    factors: dict[fx.Node, float] = {}
    pending = [(root, 1.0)]
    while pending:
        node, factor = pending.pop()
        operands = operands_of_sum(module, node) if node is root or len(node.users) == 1 else None
        if operands is None:
            factors[node] = factors.get(node, 0.0) + factor
        else:
            pending += [(operand, factor * own) for operand, own in reversed(operands)]
    return factors


def operands_of_sum(module: fx.GraphModule, node: fx.Node) -> list[tuple[fx.Node, float]] | None:
    """Return the two tensors that ``node`` adds, with their factors, or None where it is no sum of two."""
    if not is_call(node, aten.add.Tensor, aten.sub.Tensor):
        return None
    first, second, alpha = node.args[0], argument(node, 1, "other"), argument(node, 2, "alpha", 1)
    operands = [one for one in (first, second) if isinstance(one, fx.Node)]
    if len(operands) < 2 or not isinstance(alpha, (int, float)):
        return None
    if any(computed_constant(module, one) is not None or shape_of(one) != shape_of(node) for one in operands):
        return None
    return [(operands[0], 1.0), (operands[1], float(-alpha if is_call(node, aten.sub.Tensor) else alpha))]


def _reached(module: fx.GraphModule, leaf: fx.Node, sources: set[fx.Node]) -> fx.Node | None:
    """Return the one of ``sources`` that ``leaf`` is computed from first."""
    pending, seen = [leaf], set()
    while pending:
        node = pending.pop(0)
        if node in sources:
            return node
        if node not in seen:
            seen.add(node)
            pending += [one for one in node.all_input_nodes if constant(module, one) is None]
    return None


def evaluate(module: fx.GraphModule, leaf: fx.Node, source: fx.Node, x: Tensor) -> Tensor:
    """Return the value of ``leaf`` of ``module`` where ``source`` has the value ``x``; the rest is computed."""
    values: dict[fx.Node, Any] = {source: x}

    def value_of(node: fx.Node) -> Any:
        if node not in values:
            if node.op == "get_attr":
                values[node] = constant(module, node)
            else:
                args, kwargs = fx.node.map_arg((node.args, node.kwargs), value_of)
                assert callable(node.target)
                values[node] = node.target(*args, **kwargs)
        return values[node]

    with torch.no_grad():
        result = value_of(leaf)
    assert isinstance(result, Tensor)
    return result


def inside(leaf: fx.Node, source: fx.Node) -> set[fx.Node]:
    """Return the nodes that compute ``leaf`` from ``source``, ``leaf`` included and ``source`` not."""
    depends: dict[fx.Node, bool] = {source: True}

    def reads_source(node: fx.Node) -> bool:
        if node not in depends:
            depends[node] = False
            answers = [reads_source(one) for one in node.all_input_nodes]
            depends[node] = any(answers)
        return depends[node]

    reads_source(leaf)
    return {node for node, does in depends.items() if does and node is not source}

"""The same operation on the same values is computed once.

Algebra: a pure function of the same arguments gives the same result. Results of the network stay apart, since each
has its own name in the file.
"""

from __future__ import annotations

import operator

from torch import fx

from deploykit.graph.graph import Graph, Recorder, erase_unread, is_pure, sources, stand_for, with_rewrite

NAME = "common_subexpressions"


def common_subexpressions(graph: Graph) -> Graph:
    """Return ``graph`` with every operation that repeats an earlier one replaced by it."""
    return with_rewrite(graph, NAME, rewrite)


def rewrite(module: fx.GraphModule, recorder: Recorder) -> None:
    """Merge the repeated operations of ``module`` in place; note each."""
    first: dict[object, fx.Node] = {}
    for node in list(module.graph.nodes):
        key = _key(node)
        known = None if key is None else first.setdefault(key, node)
        if known is None or known is node:
            continue
        if node.op == "call_function":
            made_from = tuple(dict.fromkeys((*sources(known), *sources(node))))
            recorder.fired(made_from, f"{node.target} computed once")
            stand_for(known, known, made_from)
        node.replace_all_uses_with(known)
        erase_unread(module, node)


def _key(node: fx.Node) -> object:
    """Return what a node computes, in terms of the nodes it reads; None where it must stay by itself."""
    if node.op == "get_attr":
        return (node.op, node.target)
    if not (is_pure(node) or node.target is operator.getitem) or any(reader.op == "output" for reader in node.users):
        return None
    return (node.target, _frozen(node.args), _frozen(node.kwargs))


def _frozen(value: object) -> object:
    """Return ``value`` as something hashable; 1 and 1.0 and True stay apart."""
    if isinstance(value, dict):
        return tuple((key, _frozen(one)) for key, one in sorted(value.items()))
    if isinstance(value, (list, tuple)):
        return tuple(_frozen(one) for one in value)
    return value if isinstance(value, fx.Node) else (type(value), repr(value))

"""Drop the outputs that a deployment does not keep, with everything that only they need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import fx

from deploykit.errors import RecipeError
from deploykit.graph.graph import Graph, Recorder, drop_dead_code, module_path

NAME = "drop_unused_outputs"


def drop_unused_outputs(graph: Graph, keep: Sequence[str]) -> Graph:
    """Return ``graph`` with the outputs named in ``keep`` only, in that order, and without dead code.

    The report holds one entry per dropped output, with the modules that only it needed.

    Raises:
        RecipeError: ``keep`` is empty, repeats a name, or names an output that the network does not have.
    """
    copied = graph.copy()
    recorder = Recorder(NAME)
    return recorder.finish(rewrite(copied, keep, recorder))


def rewrite(graph: Graph, keep: Sequence[str], recorder: Recorder) -> Graph:
    """Return ``graph``, its module changed in place, with the outputs in ``keep`` only; note what was dropped."""
    _check(graph, keep)
    output = next(n for n in graph.module.graph.nodes if n.op == "output")
    results = dict(zip(graph.outputs, output.args[0], strict=True))
    alive = _needed([results[name] for name in keep])
    kept_modules = {module_path(node) for node in alive}
    reported: set[fx.Node] = set()
    for name in graph.outputs:
        if name in keep:
            continue
        dead = _needed([results[name]]) - alive - reported
        reported |= dead
        paths = [module_path(n) for n in graph.module.graph.nodes if n in dead and n.op == "call_function"]
        modules = [path for path in dict.fromkeys(paths) if path not in kept_modules]
        recorder.fired(modules, f"dropped the output {name}")
    output.args = (tuple(results[name] for name in keep),)
    drop_dead_code(graph.module.graph)
    return replace(graph, outputs=tuple(keep))


def _check(graph: Graph, keep: Sequence[str]) -> None:
    unknown = [name for name in keep if name not in graph.outputs]
    if unknown or not keep or len(set(keep)) != len(keep):
        raise RecipeError(
            "The outputs to keep are not outputs of the network.",
            where="outputs",
            found=", ".join(keep) or "no output",
            expected=f"each at most once, of: {', '.join(graph.outputs)}",
            next_step="name at least one of the listed outputs",
        )


def _needed(results: Sequence[fx.Node]) -> set[fx.Node]:
    found: set[fx.Node] = set()
    pending = list(results)
    while pending:
        node = pending.pop()
        if node not in found:
            found.add(node)
            pending.extend(node.all_input_nodes)
    return found

"""The self-test of verification: each fold is damaged in turn, and the comparison has to notice.

A damage replaces one statistic of one BatchNorm by its neutral value (mean 0, variance 1 - eps, gamma 1, beta 0),
which is what a folding rule that forgets it would compute. The damaged graph is simplified and compared with the
undamaged training form. What changes nothing by construction is told from what was missed by the scale and the
shift of the layer itself, and then by the training form with the same damage.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, fx

from deploykit.graph.graph import Graph, add_weight, aten, calls, constant, module_path
from deploykit.graph.simplify import simplify
from deploykit.recipe import Recipe
from deploykit.records import DeadChannels, Injection
from deploykit.verify.reference import as_tensors
from deploykit.verify.samples import Sample

Report: TypeAlias = Callable[[int, int, str], None]
STATISTICS = {"gamma": 1, "beta": 2, "mean": 3, "variance": 4}
DEAD_GAMMA = 1e-6
_CONSUMING_PASSES = ("fold_batch_norm", "merge_branches")


@dataclass(frozen=True)
class _Affine:
    """What a BatchNorm computes per channel: ``scale * x + shift``."""

    scale: Tensor
    shift: Tensor


def inject(training: Graph, recipe: Recipe, samples: Sequence[Sample], report: Report) -> tuple[Injection, ...]:
    """Return what became of each damage to each BatchNorm of ``training`` that simplification consumes."""
    kept = [output.name for output in recipe.deployed()]
    tolerance = recipe.file.tolerances.float64.relative_l2 or 1e-12
    inputs = [as_tensors(sample, recipe, torch.float64) for sample in samples]
    places = [training.outputs.index(name) for name in kept]
    truth = [[training.run(*given)[place] for place in places] for given in inputs]
    consumed = _consumed(simplify(training, keep_outputs=kept))
    names = [n.name for n in calls(training.module.graph, aten.batch_norm.default) if module_path(n) in consumed]
    found = []
    for done, name in enumerate(names):
        module = module_path(_node(training, name))
        report(done, len(names), module)
        for dropped in STATISTICS:
            reason = _unchanged(training, name, dropped)
            if reason:
                found.append(Injection(module, dropped, "neutral", 0.0, reason))
                continue
            damaged = _damaged(training, name, dropped)
            deployed = simplify(damaged, keep_outputs=kept)
            error = _distance([list(deployed.run(*given)) for given in inputs], truth)
            outcome, reason = "caught", ""
            if error <= tolerance:
                oracle = _distance([[damaged.run(*given)[place] for place in places] for given in inputs], truth)
                outcome = "neutral" if oracle <= tolerance else "missed"
                reason = (
                    f"{_dead(training, name)}: the change does not reach the output" if outcome == "neutral" else ""
                )
            found.append(Injection(module, dropped, outcome, error, reason))
    report(len(names), len(names), "")
    return tuple(found)


def dead_channels(training: Graph) -> tuple[DeadChannels, ...]:
    """Return the BatchNorms of ``training`` with dead channels: no damage to mean or variance changes those."""
    found = []
    for node in calls(training.module.graph, aten.batch_norm.default):
        gamma = _statistic(training, node, "gamma")
        dead = 0 if gamma is None else int((gamma.abs() < DEAD_GAMMA).sum())
        if gamma is not None and dead:
            found.append(DeadChannels(module_path(node), dead, gamma.numel()))
    return tuple(found)


def _consumed(deployed: Graph) -> set[str]:
    return {module for name in _CONSUMING_PASSES for fired in deployed.report(name).fired for module in fired.modules}


def _node(graph: Graph, name: str) -> fx.Node:
    found: fx.Node = next(node for node in graph.module.graph.nodes if node.name == name)
    return found


def _statistic(graph: Graph, node: fx.Node, dropped: str) -> Tensor | None:
    return constant(graph.module, node.args[STATISTICS[dropped]])


def _neutral(node: fx.Node, dropped: str, like: Tensor) -> Tensor:
    eps = float(node.args[7])  # type: ignore[arg-type]
    value = {"gamma": 1.0, "beta": 0.0, "mean": 0.0, "variance": 1.0 - eps}[dropped]
    return torch.full_like(like, value)


def _affine(graph: Graph, node: fx.Node, dropped: str | None = None) -> _Affine:
    values: dict[str, Tensor] = {}
    for name in STATISTICS:
        value = _statistic(graph, node, name)
        if value is not None:
            values[name] = _neutral(node, name, value) if name == dropped else value
    mean, variance = values["mean"], values["variance"]
    gamma = values.get("gamma", torch.ones_like(mean))
    beta = values.get("beta", torch.zeros_like(mean))
    scale = gamma / torch.sqrt(variance + float(node.args[7]))  # type: ignore[arg-type]
    return _Affine(scale, beta - mean * scale)


def _unchanged(graph: Graph, name: str, dropped: str) -> str:
    """Return why dropping this statistic changes neither scale nor shift of any channel, or an empty text."""
    node = _node(graph, name)
    value = _statistic(graph, node, dropped)
    if value is None:
        return "no affine parameters"
    before, after = _affine(graph, node), _affine(graph, node, dropped)
    if torch.equal(before.scale, after.scale) and torch.equal(before.shift, after.shift):
        neutral = torch.equal(value, _neutral(node, dropped, value))
        return f"{dropped} is already neutral" if neutral else _dead(graph, name)
    return ""


def _dead(graph: Graph, name: str) -> str:
    gamma = _statistic(graph, _node(graph, name), "gamma")
    if gamma is None:
        return "every channel lives"
    return f"{int((gamma.abs() < DEAD_GAMMA).sum())} of {gamma.numel()} channels dead (|gamma| < {DEAD_GAMMA:g})"


def _damaged(graph: Graph, name: str, dropped: str) -> Graph:
    copied = graph.copy()
    node = _node(copied, name)
    value = _statistic(copied, node, dropped)
    assert value is not None
    weight = add_weight(copied.module, f"damaged.{dropped}", _neutral(node, dropped, value), node)
    node.update_arg(STATISTICS[dropped], weight)
    copied.module.recompile()
    return copied


def _distance(measured: list[list[Tensor]], truth: list[list[Tensor]]) -> float:
    """Return the relative L2 distance; infinity where either holds NaN, which no damage may hide behind."""
    squares = energy = 0.0
    for sample, expected in zip(measured, truth, strict=True):
        for a, b in zip(sample, expected, strict=True):
            squares += float((a - b).square().sum())
            energy += float(b.square().sum())
    ratio = float(np.sqrt(squares / energy)) if energy > 0 else float("inf")
    return ratio if np.isfinite(ratio) else float("inf")

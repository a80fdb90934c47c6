"""Merge sums of parallel linear branches from one tensor into one convolution (RCRNet, equations 2 to 4).

Algebra: ``conv(x, W1) + b1 + conv(x, W2) + b2 = conv(x, W1 + W2) + b1 + b2``, once both kernels lie on the same
grid of taps. A smaller kernel is placed so that its taps meet the same inputs, with zeros elsewhere; the identity is
a 1x1 kernel of ones on the diagonal, average pooling over n values a kernel of 1/n where padding counts as zeros, and
a scale multiplies the kernel. Strides must agree, groups become the coarser of the two, and the product must not cost
more multiply-accumulates than its parts. A shift followed by a zero-padded kernel is right inside and wrong at the
border: that chain is taken only without shift, without padding, or where the border carries the shift.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from deploykit.graph.algebra import place_kernel, regroup
from deploykit.graph.graph import (
    Graph,
    Recorder,
    add_weight,
    argument,
    aten,
    computed_constant,
    erase_unread,
    is_call,
    module_path,
    shape_of,
    sources,
    stamp,
    stand_for,
    weight_path,
    with_rewrite,
)
from deploykit.graph.passes.linear_branch import Branch, chain, read_branch
from deploykit.graph.passes.linear_step import Pair, Step

NAME = "merge_branches"

NO_COMMON_SOURCE = "no two terms come from one tensor through linear operations"
NO_CONVOLUTION = "no convolution among the terms that come from one tensor"
OTHER_STRIDE = "its stride {stride} is not the stride {other} of the other terms"
MORE_WORK = "merged it would take {merged} multiply-accumulates instead of {apart}"
ONE_SIDED = "the padding of the merged convolution would differ from side to side"

_PLACE = ("nn_module_stack", "stack_trace")


def merge_branches(graph: Graph) -> Graph:
    """Return ``graph`` with sums of linear branches from one tensor replaced by one convolution each.

    A branch is a chain of convolution, BatchNorm, average pooling, scaling and padding, none of whose
    intermediate results has another reader; the identity is one too. Terms of a sum that do not fit stay in it,
    with the reason. Merging never raises the number of multiply-accumulates (MACs): identity counts 0, BatchNorm
    and scaling 1 per value, average pooling its window per value. Weights shared by several calls are copied.
    """
    return with_rewrite(graph, NAME, rewrite)


def rewrite(module: fx.GraphModule, recorder: Recorder) -> None:
    """Merge the sums of ``module`` in place; note each merge and each term left alone."""
    for node in list(module.graph.nodes):
        root: fx.Node | None = node
        while root is not None and _is_root(module, root):
            root = _merge_once(module, root, recorder)


@dataclass(frozen=True)
class _Term:
    node: fx.Node
    factor: float
    steps: list[Step]

    @property
    def source(self) -> fx.Node:
        return self.steps[0].source if self.steps else self.node


@dataclass(frozen=True)
class _Plan:
    """The geometry of a merged convolution; ``fits`` says whether equal padding on both sides gives its output."""

    size: Pair
    padding: Pair
    dilation: Pair
    groups: int
    macs: int
    fits: bool


def _is_sum(module: fx.GraphModule, node: object) -> bool:
    """Whether ``node`` adds or subtracts two computed tensors of its own four-dimensional shape."""
    if not is_call(node, aten.add.Tensor, aten.sub.Tensor):
        return False
    assert isinstance(node, fx.Node)
    shape = shape_of(node)
    operands = (node.args[0], argument(node, 1, "other"))
    return (
        shape is not None
        and len(shape) == 4
        and all(isinstance(x, fx.Node) and shape_of(x) == shape for x in operands)
        and all(computed_constant(module, x) is None for x in operands)
        and isinstance(argument(node, 2, "alpha", 1), (int, float))
    )


def _is_root(module: fx.GraphModule, node: fx.Node) -> bool:
    """Whether ``node`` is a sum that is not merely a part of a larger one."""
    if node._erased or not _is_sum(module, node):
        return False
    return len(node.users) != 1 or not _is_sum(module, next(iter(node.users)))


def _terms(module: fx.GraphModule, root: fx.Node) -> list[_Term]:
    """Return the terms of the sum that ends in ``root``, each once, in order, with their factors."""
    factors: dict[fx.Node, float] = {}
    pending = [(root, 1.0)]
    while pending:
        node, factor = pending.pop()
        if node is root or (len(node.users) == 1 and _is_sum(module, node)):
            alpha = argument(node, 2, "alpha", 1)
            first, second = node.args[0], argument(node, 1, "other")
            assert isinstance(alpha, (int, float))
            assert isinstance(first, fx.Node)
            assert isinstance(second, fx.Node)
            sign = -alpha if is_call(node, aten.sub.Tensor) else alpha
            pending += [(second, factor * sign), (first, factor)]
        else:
            factors[node] = factors.get(node, 0.0) + factor
    return [_Term(node, factor, chain(module, node)) for node, factor in factors.items()]


def _merge_once(module: fx.GraphModule, root: fx.Node, recorder: Recorder) -> fx.Node | None:
    """Merge one group of terms below ``root`` and return the node of the new sum, or None where none fits."""
    terms = _terms(module, root)
    groups: dict[fx.Node, list[_Term]] = {}
    for term in terms:
        groups.setdefault(term.source, []).append(term)
    groups = {source: group for source, group in groups.items() if len(group) > 1}
    reasons: list[tuple[str, str]] = []
    for group in groups.values():
        merged = _largest_group(group, reasons)
        if merged is not None:
            branches, plan = merged
            modules = tuple(dict.fromkeys(path for branch in branches for path in branch.modules))
            recorder.fired(modules, _describe(branches, plan))
            return _emit(module, root, terms, branches, plan)
    for path, reason in reasons if groups else [(module_path(root), NO_COMMON_SOURCE)]:
        recorder.skipped(path, reason)
    return None


def _largest_group(terms: list[_Term], reasons: list[tuple[str, str]]) -> tuple[list[Branch], _Plan] | None:
    """Return the terms of one tensor that merge together; add to ``reasons`` why the others do not."""
    branches: list[Branch] = []
    for term in terms:
        branch = read_branch(term.node, term.steps)
        if isinstance(branch, str):
            reasons.append((_path(term.node, term.steps), branch))
        else:
            branches.append(branch.scaled(term.factor))
    by_stride: dict[Pair, list[Branch]] = {}
    for branch in branches:
        by_stride.setdefault(branch.stride, []).append(branch)
    for stride, group in sorted(by_stride.items(), key=lambda item: -len(item[1])):
        if len(group) == 1:
            if len(by_stride) > 1:
                other = next(other for other in by_stride if other != stride)
                reasons.append((sources(group[0].leaf)[0], OTHER_STRIDE.format(stride=stride, other=other)))
            continue
        if all(branch.anchor is None for branch in group):
            reasons.append((sources(group[0].leaf)[0], NO_CONVOLUTION))
            continue
        found = _shrink(group, reasons)
        if found is not None:
            return found
    return None


def _path(leaf: fx.Node, steps: list[Step]) -> str:
    return sources(steps[0].node if steps else leaf)[0]


def _shrink(group: list[Branch], reasons: list[tuple[str, str]]) -> tuple[list[Branch], _Plan] | None:
    """Return the branches left once those that keep the others from merging are taken out, one by one."""
    refused: list[tuple[str, str]] = []
    while len(group) > 1:
        plan = _plan(group)
        apart = sum(branch.macs for branch in group)
        if plan.fits and plan.macs <= apart:
            return group, plan
        reason = MORE_WORK.format(merged=plan.macs, apart=apart) if plan.fits else ONE_SIDED
        rests = [[other for other in group if other is not branch] for branch in group]
        rests = [rest for rest in rests if any(branch.anchor is not None for branch in rest)]
        best = min(reversed(rests), key=_excess)
        taken = next(branch for branch in group if branch not in best)
        refused.append((sources(taken.leaf)[0], reason))
        group = best
    reasons.extend(refused)
    return None


def _excess(group: list[Branch]) -> tuple[bool, int]:
    plan = _plan(group)
    return not plan.fits, plan.macs - sum(branch.macs for branch in group)


def _plan(group: Sequence[Branch]) -> _Plan:
    """Return the smallest convolution that holds every tap of every branch of one source and stride."""
    before, after = shape_of(group[0].source), shape_of(group[0].leaf)
    assert before is not None
    assert after is not None
    axes = [_axis(group, axis) for axis in range(2)]
    size, padding, dilation = ((axes[0][i], axes[1][i]) for i in range(3))
    groups = math.gcd(*(branch.groups for branch in group))
    fits = all(
        (before[2 + i] + 2 * padding[i] - dilation[i] * (size[i] - 1) - 1) // group[0].stride[i] + 1 == after[2 + i]
        for i in range(2)
    )
    macs = math.prod(after[1:]) * (before[1] // groups) * size[0] * size[1]
    return _Plan(size, padding, dilation, groups, macs, fits)


def _axis(group: Sequence[Branch], axis: int) -> tuple[int, int, int]:
    """Return size, padding and dilation along one axis: every tap lies on the grid that they make."""
    taps = {
        branch.dilation[axis] * index - branch.offset[axis] for branch in group for index in range(branch.size[axis])
    }
    lowest = min(taps)
    step = math.gcd(*(tap - lowest for tap in taps)) or 1
    return (max(taps) - lowest) // step + 1, -lowest, step


def _emit(
    module: fx.GraphModule, root: fx.Node, terms: Sequence[_Term], branches: Sequence[Branch], plan: _Plan
) -> fx.Node:
    """Replace ``root`` by the merged convolution, plus the terms that stay; return the new sum."""
    weight = torch.stack([_placed(branch, plan) for branch in branches]).sum(0)
    bias = torch.stack([branch.kernel.bias for branch in branches]).sum(0)
    modules = [path for branch in branches for path in branch.modules]
    anchors = [(branch.macs, branch.anchor) for branch in branches if branch.anchor is not None]
    anchor = max(anchors, key=lambda found: found[0])[1]
    merged = {branch.leaf for branch in branches}
    with module.graph.inserting_before(root):
        conv = module.graph.call_function(aten.conv2d.default, (branches[0].source,))
        total = conv
        for term in terms:
            if term.node not in merged:
                total = _add_term(module.graph, total, term)
                stamp(total, root, ("val", *_PLACE))
    stamp(conv, root, ("val",))
    stamp(conv, anchor, _PLACE)
    stand_for(conv, None, modules)
    stand_for(total, root, modules)
    root.replace_all_uses_with(total)
    erase_unread(module, root)
    weight_node = add_weight(module, weight_path(anchor, "weight"), weight, conv)
    bias_node = add_weight(module, weight_path(anchor, "bias"), bias, conv) if bool(bias.any()) else None
    geometry = (list(branches[0].stride), list(plan.padding), list(plan.dilation), plan.groups)
    conv.args = (branches[0].source, weight_node, bias_node, *geometry)
    return total


def _placed(branch: Branch, plan: _Plan) -> Tensor:
    """Return the kernel of ``branch`` on the grid and in the groups of the merged one."""
    placed = [
        (
            (plan.padding[axis] - branch.offset[axis]) // plan.dilation[axis],
            max(branch.dilation[axis] // plan.dilation[axis], 1),
        )
        for axis in range(2)
    ]
    kernel = regroup(branch.kernel.weight, branch.groups, plan.groups)
    return place_kernel(kernel, plan.size, (placed[0][0], placed[1][0]), (placed[0][1], placed[1][1]))


def _add_term(graph: fx.Graph, total: fx.Node, term: _Term) -> fx.Node:
    if term.factor == -1:
        return graph.call_function(aten.sub.Tensor, (total, term.node))
    call = graph.call_function(aten.add.Tensor, (total, term.node))
    if term.factor != 1:
        call.kwargs = {"alpha": term.factor}
    return call


def _describe(branches: Sequence[Branch], plan: _Plan) -> str:
    apart = sum(branch.macs for branch in branches)
    kernel = f"{plan.size[0]}x{plan.size[1]}"
    return f"{len(branches)} terms merged into one {kernel} convolution, {plan.macs} multiply-accumulates of {apart}"

"""Channel shuffles, and splits and concatenations that only reorder, are absorbed into the weights around them.

Algebra: with ``(P x)[c] = x[order[c]]``, a dense convolution reads ``conv(P x, W) = conv(x, W')`` where
``W'[:, order[c]] = W[:, c]``; whatever acts on each channel alone commutes with P, its weights permuted; a grouped
convolution passes on a permutation of whole groups and takes one within its groups; and a sum ``P x + y`` is
``P (x + P⁻¹ y)``. So P travels towards the outputs until every reader took it, or towards the inputs until the layers
that made the value give their channels in that order. Where neither end is reached, nothing is changed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, fx

from deploykit.graph.channels import BINARY, PER_CHANNEL, channels_of, concatenated, is_channelwise
from deploykit.graph.graph import (
    Graph,
    Recorder,
    aten,
    calls,
    constant,
    erase_unread,
    is_call,
    module_path,
    shape_of,
    sources,
    with_rewrite,
)
from deploykit.graph.layers import CONVOLUTIONS, groups_of, layer_weights, replace_constant, replace_weights
from deploykit.graph.passes.permutation import Permutation, read_permutation
from deploykit.graph.value_map import reordered

NAME = "absorb_permutations"

STOPPED = "{operation} needs the channels in this order"

_ENDS = (
    aten.view.default, aten._unsafe_view.default, aten.reshape.default, aten.flatten.using_ints, aten.cat.default,
    aten.permute.default, aten.transpose.int, aten.clone.default,
)  # fmt: skip


def absorb_permutations(graph: Graph) -> Graph:
    """Return ``graph`` with every permutation of channels that the weights around it can take absorbed by them."""
    return with_rewrite(graph, NAME, rewrite)


def rewrite(module: fx.GraphModule, recorder: Recorder) -> None:
    """Absorb the permutations of ``module`` in place; note each, and what stopped the others."""
    for node in calls(module.graph, *_ENDS):
        found = None if node._erased else read_permutation(node)
        if found is None or any(is_call(user, *_ENDS) and read_permutation(user) for user in node.users):
            continue
        reasons = []
        for towards in (_readers, _makers):
            plan = _Plan(module)
            reason = towards(plan, found)
            if reason is None:
                plan.carry_out()
                modules = [*sources(found.end), *(path for one in plan.orders for path in sources(one))]
                recorder.fired(list(dict.fromkeys(modules)), f"{found.order.numel()} channels reordered in the weights")
                found.end.replace_all_uses_with(found.source)
                erase_unread(module, found.end)
                break
            reasons.append(reason)
        else:
            recorder.skipped(module_path(node), reasons[0])


@dataclass
class _Plan:
    """Which values come in another order: each node of ``orders`` gives v' with ``v[c] = v'[orders[node][c]]``.

    The weights follow from the orders of what they read and of what they give, once all are known.
    """

    module: fx.GraphModule
    orders: dict[fx.Node, Tensor] = field(default_factory=dict)

    def carry_out(self) -> None:
        """Change the weights, and note what each value stands for now."""
        for node in list(self.module.graph.nodes):
            if is_call(node, *CONVOLUTIONS):
                self._reorder_convolution(node)
            elif node in self.orders:
                self._reorder_constants(node)
        for node, order in self.orders.items():
            reordered(node, order)

    def reads(self, node: fx.Node) -> str | None:
        """Let ``node`` read what comes in another order; None, or what keeps it from that."""
        given = node.args[0] if node.args else None
        if is_call(node, *CONVOLUTIONS):
            return self._convolution_reads(node)
        joined = concatenated(node)
        if joined is not None:
            places = [self.orders.get(part, torch.arange(channels_of(part) or 0)) for part in joined]
            starts = torch.tensor([0, *(one.numel() for one in places)]).cumsum(0)
            self.orders[node] = torch.cat([one + int(s) for one, s in zip(places, starts, strict=False)])
            return None
        if node.target in PER_CHANNEL and node.all_input_nodes[0] is given and given in self.orders:
            return self._gives(node, self.orders[given]) or self._takes_constants(node)
        if is_channelwise(node):
            assert isinstance(given, fx.Node)
            return self._gives(node, self.orders[given])
        if is_call(node, *BINARY):
            order = next(self.orders[one] for one in node.all_input_nodes if one in self.orders)
            return self._gives(node, order) or self._operands(node, order)
        return STOPPED.format(operation=_name(node))

    def makes(self, node: object, order: Tensor) -> str | None:
        """Let ``node``, which has no other reader, give its v'; None, or what keeps it from that."""
        if not isinstance(node, fx.Node) or len(node.users) != 1:
            return STOPPED.format(operation=_name(node))
        return self.gives(node, order)

    def gives(self, node: fx.Node, order: Tensor) -> str | None:
        """Let ``node`` give its v' to all its readers; None, or what keeps it from that."""
        if is_call(node, *CONVOLUTIONS):
            return self._convolution_gives(node, order)
        if node in self.orders:
            return self._gives(node, order)
        if node.target in PER_CHANNEL:
            return self._gives(node, order) or self._takes_constants(node) or self.makes(node.args[0], order)
        if is_channelwise(node):
            return self._gives(node, order) or self.makes(node.args[0], order)
        if is_call(node, *BINARY):
            return self._gives(node, order) or self._operands(node, order)
        return STOPPED.format(operation=_name(node))

    def _gives(self, node: fx.Node, order: Tensor) -> str | None:
        if channels_of(node) != order.numel() or not torch.equal(self.orders.setdefault(node, order), order):
            return STOPPED.format(operation=_name(node))
        return None

    def _operands(self, node: fx.Node, order: Tensor) -> str | None:
        """Let the operands of ``node`` that have its channels come in ``order``."""
        for operand in node.args[:2]:
            if not isinstance(operand, fx.Node):
                continue
            shape = shape_of(operand)
            if shape is None:
                return STOPPED.format(operation=_name(node))
            if len(shape) < 3 or shape[-3] == 1 or constant(self.module, operand) is not None:
                continue
            known = self.orders.get(operand)
            reason = None if known is not None and torch.equal(known, order) else self.makes(operand, order)
            if reason is not None:
                return reason
        return None

    def _takes_constants(self, node: fx.Node) -> str | None:
        given = (node.args[position] for position in PER_CHANNEL[node.target] if position < len(node.args))  # type: ignore[index]
        known = all(one is None or constant(self.module, one) is not None for one in given)
        return None if known else STOPPED.format(operation=_name(node))

    def _convolution_reads(self, node: fx.Node) -> str | None:
        order = self.orders.get(node.args[0])  # type: ignore[arg-type]
        target = None if order is None else _moved_groups(order, groups_of(node))
        if target is None or layer_weights(self.module, node) is None:
            return STOPPED.format(operation=_name(node))
        if target.tolist() != list(range(target.numel())):
            self.orders[node] = _of_groups(target, (channels_of(node) or 0) // target.numel())
        return None

    def _convolution_gives(self, node: fx.Node, order: Tensor) -> str | None:
        read = layer_weights(self.module, node)
        groups = groups_of(node)
        target = _moved_groups(order, groups) if order.numel() == channels_of(node) else None
        if read is None or target is None:
            return STOPPED.format(operation=_name(node))
        self.orders[node] = order
        given = node.args[0]
        known = self.orders.get(given)  # type: ignore[arg-type]
        now = torch.arange(groups) if known is None else _moved_groups(known, groups)
        if now is not None and torch.equal(now, target):
            return None
        return self.makes(given, _of_groups(target, read[0].shape[1]))

    def _reorder_convolution(self, node: fx.Node) -> None:
        before, after = self.orders.get(node.args[0]), self.orders.get(node)  # type: ignore[arg-type]
        read = layer_weights(self.module, node)
        if (before is None and after is None) or read is None:
            return
        weight, bias = read
        if before is not None:
            within = before.reshape(groups_of(node), -1) % weight.shape[1]
            blocks = zip(weight.chunk(len(within)), within, strict=True)
            weight = torch.cat([_inverse(block, order, 1) for block, order in blocks])
        if after is not None:
            weight, bias = _inverse(weight, after, 0), None if bias is None else _inverse(bias, after, 0)
        replace_weights(self.module, node, weight, bias)

    def _reorder_constants(self, node: fx.Node) -> None:
        order = self.orders[node]
        for position in PER_CHANNEL.get(node.target, (0, 1)):  # type: ignore[call-overload]
            given = node.args[position] if position < len(node.args) else None
            value = constant(self.module, given)
            axis = 0 if value is None or value.dim() == 1 else value.dim() - 3
            is_vector = value is not None and value.dim() == 1 and node.target not in PER_CHANNEL
            if value is None or is_vector or axis < 0 or value.shape[axis] != order.numel():
                continue
            replace_constant(self.module, node, position, _inverse(value, order, axis))


def _readers(plan: _Plan, found: Permutation) -> str | None:
    """Let everything after the end of the permutation come as its source does."""
    plan.orders[found.end] = found.order
    for node in plan.module.graph.nodes:
        if node is not found.end and any(given in plan.orders for given in node.all_input_nodes):
            reason = plan.reads(node)
            if reason is not None:
                return reason
    return None


def _makers(plan: _Plan, found: Permutation) -> str | None:
    """Let what makes the source give its channels as the end of the permutation has them."""
    if found.is_read_elsewhere:
        return STOPPED.format(operation="another reader")
    inverse = torch.empty_like(found.order)
    inverse[found.order] = torch.arange(found.order.numel())
    return plan.gives(found.source, inverse)


def _moved_groups(order: Tensor, groups: int) -> Tensor | None:
    """Return where each of the ``groups`` goes as a whole, or None where ``order`` takes one apart."""
    blocks = order.reshape(groups, -1)
    target = blocks // blocks.shape[1]
    return target[:, 0] if bool((target == target[:, :1]).all()) else None


def _of_groups(target: Tensor, size: int) -> Tensor:
    """Return the order of channels in groups of ``size`` that go to ``target`` as they are."""
    return (target[:, None] * size + torch.arange(size)).flatten()


def _inverse(value: Tensor, order: Tensor, axis: int) -> Tensor:
    """Return v' with ``v[c] = v'[order[c]]`` along ``axis``."""
    result = torch.empty_like(value)
    result.index_copy_(axis, order, value)
    return result


def _name(node: object) -> str:
    if not isinstance(node, fx.Node):
        return "a constant"
    return "an output of the network" if node.op == "output" else str(node.target)

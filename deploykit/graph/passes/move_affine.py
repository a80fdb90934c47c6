"""A scale and shift per channel moves to where it costs nothing: into a convolution, or to a smaller value.

Algebra, with ``A x = s · x + t`` per channel: ``A conv(x, W, b) = conv(x, s · W, s · b + t)``; bilinear and nearest
resizing and average pooling over whole windows are means with weights that sum to 1, so that ``A resize(x) =
resize(A x)``, and ``pool`` likewise where no padding is counted; so does max pooling where no scale is negative;
``A [x, y] = [A₁ x, A₂ y]`` for a concatenation; ``A (x + y) = A x + s · y``; and ``conv(A x, W, b) =
conv(x, W · s, b + Σ W t)`` where the convolution does not pad, or t is zero. A value that has another reader stays as
it is. What no convolution takes stays a BatchNorm of mean 0 and variance 1, on the smallest value that it reached.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import fx

from deploykit.graph.algebra import BatchNormStats, scale_inputs, scale_outputs
from deploykit.graph.channels import RESIZES, channels_of, concatenated
from deploykit.graph.graph import (
    Graph,
    Recorder,
    add_weight,
    argument,
    aten,
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
from deploykit.graph.layers import CONVOLUTIONS, TRANSPOSED, groups_of, layer_weights, pads, replace_weights
from deploykit.graph.passes.fold_batch_norm import batch_norm_stats
from deploykit.graph.passes.linear_step import Affine, Step, read_step
from deploykit.graph.value_map import mapped

NAME = "move_affine"

_MAXIMA = (aten.max_pool2d.default, aten.adaptive_max_pool2d.default)

STATISTICS = "its statistics are written as one scale and one shift"
NO_PLACE = "no convolution around it takes it: it stands between {before} and {after}"


def move_affine(graph: Graph) -> Graph:
    """Return ``graph`` with every scale and shift per channel moved into a convolution, or to a smaller value."""
    return with_rewrite(graph, NAME, rewrite)


def rewrite(module: fx.GraphModule, recorder: Recorder) -> None:
    """Move the affine maps of ``module`` in place; note each, and those that stay."""
    for node in list(module.graph.nodes):
        found = None if channels_of(node) is None else read_step(module, node)
        if found is not None and isinstance(found.operation, Affine):
            made_from = list(sources(node))
            if _joined_with_the_one_before(module, found, found.operation):
                recorder.fired(made_from, "joined with the scale and shift before it")
    for node in list(module.graph.nodes):
        found = None if node._erased or channels_of(node) is None else read_step(module, node)
        if found is None or not isinstance(found.operation, Affine):
            continue
        made_from = list(sources(node))
        here = _size(found.source)
        upwards = _upwards(module, found.source, found.operation, found.node)
        into = _into_readers(module, node, found.operation) if upwards is None or upwards.left >= here else None
        if into is not None:
            recorder.fired(made_from, f"taken by {', '.join(str(reader.target) for reader in node.users)} after it")
            for edit in into:
                edit()
            node.replace_all_uses_with(found.source)
        elif upwards is not None and upwards.left < here:
            recorder.fired(made_from, _describe(upwards, here))
            for edit in upwards.edits:
                edit()
            stand_for(found.source, node, (*sources(found.source), *made_from))
            node.replace_all_uses_with(found.source)
        else:
            after = ", ".join(sorted({_name(user) for user in node.users}))
            recorder.skipped(module_path(node), NO_PLACE.format(before=_name(found.source), after=after))
            if not _has_statistics(module, node):
                continue
            recorder.fired(made_from, STATISTICS)
            call = insert_affine(module, found.source, found.operation, node)
            stand_for(call, node, made_from)
            node.replace_all_uses_with(call)
        erase_unread(module, node)


def _has_statistics(module: fx.GraphModule, node: fx.Node) -> bool:
    """Whether ``node`` is a BatchNorm of another mean than 0 or variance than 1: converters write it as four steps."""
    stats = batch_norm_stats(module, node) if is_call(node, aten.batch_norm.default) else None
    if not isinstance(stats, BatchNormStats):
        return False
    return bool(stats.mean.any()) or not bool((stats.var == 1).all()) or stats.eps != 0


def _joined_with_the_one_before(module: fx.GraphModule, step: Step, outer: Affine) -> bool:
    """Replace two maps in a row by one; whether there were two."""
    before = read_step(module, step.source)
    if before is None or not isinstance(before.operation, Affine) or set(step.source.users) != {step.node}:
        return False
    inner = before.operation
    joined = Affine(outer.scale * inner.scale, outer.scale * inner.shift + outer.shift, 1)
    simple = not bool(joined.shift.any()) or bool((joined.scale == 1).all())
    if not (simple or is_call(step.node, aten.batch_norm.default) or is_call(step.source, aten.batch_norm.default)):
        # A product and a sum are what a BatchNorm is to most converters, or less.
        return False
    call = insert_affine(module, before.source, joined, step.node)
    stand_for(call, step.node, (*sources(step.source), *sources(step.node)))
    step.node.replace_all_uses_with(call)
    erase_unread(module, step.node)
    return True


@dataclass
class _Move:
    """``edits`` carry the map into what makes a value; maps over ``left`` values per image are left over."""

    edits: list[Callable[[], None]] = field(default_factory=list)
    left: int = 0
    taken: int = 0


def _upwards(module: fx.GraphModule, value: fx.Node, affine: Affine, reader: fx.Node) -> _Move | None:
    """Return how what makes ``value``, read by ``reader`` alone, gives ``A value``; None where it has other readers."""
    if set(value.users) != {reader}:
        return None
    if is_call(value, *CONVOLUTIONS, *TRANSPOSED):
        return _into_layer(module, value, affine)
    if _averages(value) or (is_call(value, *_MAXIMA) and not bool((affine.scale < 0).any())):
        source = value.args[0]
        assert isinstance(source, fx.Node)
        move = _cheaper(_upwards(module, source, affine, value), _left_at(module, value, 0, affine))
        move.edits.append(lambda: mapped(value, affine.scale, affine.shift))
        return move
    joined = concatenated(value)
    if joined is not None:
        return _across(module, value, joined, affine)
    return _into_sum(module, value, affine) if is_call(value, aten.add.Tensor, aten.sub.Tensor) else None


def _into_layer(module: fx.GraphModule, layer: fx.Node, affine: Affine) -> _Move | None:
    read = layer_weights(module, layer)
    if read is None:
        return None
    weight, bias = read
    if is_call(layer, *TRANSPOSED):
        groups = groups_of(layer)
        blocks = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
        scaled = (blocks * affine.scale.reshape(groups, 1, -1, 1, 1)).reshape(weight.shape)
    else:
        scaled = scale_outputs(weight, affine.scale)
    shift = affine.shift if bias is None else affine.scale * bias + affine.shift

    def edit() -> None:
        replace_weights(module, layer, scaled, shift if bool(shift.any()) else None)
        mapped(layer, affine.scale, affine.shift)

    return _Move([edit], 0, 1)


def _across(module: fx.GraphModule, value: fx.Node, parts: list[fx.Node], affine: Affine) -> _Move | None:
    ends = torch.tensor([channels_of(part) or 0 for part in parts]).cumsum(0)[:-1]
    own = zip(affine.scale.tensor_split(ends), affine.shift.tensor_split(ends), strict=True)
    return _into_operands(module, value, parts, [Affine(*one, affine.macs_per_value) for one in own], affine)


def _into_sum(module: fx.GraphModule, value: fx.Node, affine: Affine) -> _Move | None:
    """Return the move into both operands, the shift into the one where less is left."""
    operands = [one for one in value.args if isinstance(one, fx.Node) and shape_of(one) == shape_of(value)]
    if len(operands) != 2 or value.kwargs or len(value.args) != 2:
        return None
    scale, shift, macs = affine.scale, affine.shift, affine.macs_per_value
    sign = -1.0 if is_call(value, aten.sub.Tensor) else 1.0
    choices = ((shift, 0 * shift), (0 * shift, sign * shift))
    moves = [_into_operands(module, value, operands, [Affine(scale, t, macs) for t in ts], affine) for ts in choices]
    return min((move for move in moves if move is not None), key=lambda move: move.left, default=None)


def _into_operands(
    module: fx.GraphModule, value: fx.Node, operands: list[fx.Node], own: list[Affine], affine: Affine
) -> _Move | None:
    """Return the move of the maps ``own`` into the ``operands`` of ``value``; None where no layer takes any."""
    move = _Move()
    for position, (operand, one) in enumerate(zip(operands, own, strict=True)):
        if bool((one.scale == 1).all()) and not bool(one.shift.any()):
            continue
        moved = _upwards(module, operand, one, value) if operands.count(operand) == 1 else None
        moved = _cheaper(moved, _left_at(module, value, position, one))
        move.edits += moved.edits
        move.left += moved.left
        move.taken += moved.taken
    move.edits.append(lambda: mapped(value, affine.scale, affine.shift))
    return move if move.taken else None


def _cheaper(further: _Move | None, here: _Move) -> _Move:
    return here if further is None or further.left > here.left else further


def _left_at(module: fx.GraphModule, reader: fx.Node, position: int, affine: Affine) -> _Move:
    """Return the move that puts a BatchNorm between ``reader`` and its operand at ``position``."""
    joined = concatenated(reader)
    operand = reader.args[position] if joined is None else joined[position]
    assert isinstance(operand, fx.Node)

    def edit() -> None:
        call = insert_affine(module, operand, affine, reader)
        if joined is None:
            reader.update_arg(position, call)
        else:
            parts = list(reader.args[0])  # type: ignore[arg-type]
            parts[position] = call
            reader.update_arg(0, parts)

    return _Move([edit], _size(operand), 0)


def insert_affine(module: fx.GraphModule, value: fx.Node, affine: Affine, before: fx.Node) -> fx.Node:
    """Return ``s · value + t`` inserted before ``before``: a product, a sum, or a BatchNorm of mean 0, variance 1."""
    path = f"{weight_path(before, 'affine')}"
    if not bool(affine.shift.any()) or bool((affine.scale == 1).all()):
        target, number = (aten.add.Tensor, affine.shift) if affine.shift.any() else (aten.mul.Tensor, affine.scale)
        constant_node = add_weight(module, path, number.reshape(1, -1, 1, 1), before)
        with module.graph.inserting_before(before):
            call = module.graph.call_function(target, (value, constant_node))
        return _stamped(call, value, before)
    tensors = (affine.scale, affine.shift, torch.zeros_like(affine.scale), torch.ones_like(affine.scale))
    names = ("weight", "bias", "running_mean", "running_var")
    nodes = [add_weight(module, f"{path}.{n}", t.contiguous(), before) for n, t in zip(names, tensors, strict=True)]
    with module.graph.inserting_before(before):
        call = module.graph.call_function(aten.batch_norm.default, (value, *nodes, False, 0.0, 0.0, False))
    return _stamped(call, value, before)


def _stamped(call: fx.Node, value: fx.Node, before: fx.Node) -> fx.Node:
    stamp(call, before, ("nn_module_stack", "stack_trace"))
    call.meta["val"] = value.meta["val"]
    stand_for(call, None, sources(before))
    return call


def _into_readers(module: fx.GraphModule, node: fx.Node, affine: Affine) -> list[Callable[[], None]] | None:
    """Return the edits by which every reader of ``node``, all of them convolutions, takes the map; else None."""
    edits: list[Callable[[], None]] = []
    for reader in node.users:
        read = layer_weights(module, reader) if is_call(reader, *CONVOLUTIONS) else None
        if read is None or (pads(reader) and bool(affine.shift.any())):
            return None
        weight, bias = read
        groups = groups_of(reader)
        scaled = scale_inputs(weight, affine.scale, groups)
        through = weight.sum((2, 3)).reshape(groups, -1, weight.shape[1])
        shift = (through @ affine.shift.reshape(groups, -1, 1)).flatten()
        total = shift if bias is None else bias + shift
        edits.append(
            lambda r=reader, w=scaled, b=total: replace_weights(module, r, w, b if bool(b.any()) else None)  # type: ignore[misc]
        )
    return edits or None


def _averages(value: fx.Node) -> bool:
    """Whether every result of ``value`` is a mean of inputs of its channel, with weights that sum to 1."""
    if is_call(value, *RESIZES, aten.adaptive_avg_pool2d.default):
        return True
    if is_call(value, aten.mean.dim):
        axes = argument(value, 1, "dim")
        return (
            isinstance(axes, (list, tuple)) and {int(a) % 4 for a in axes} == {2, 3} and channels_of(value) is not None
        )
    if not is_call(value, aten.avg_pool2d.default):
        return False
    padded = any(argument(value, 3, "padding", [0]))  # type: ignore[arg-type]
    counted = argument(value, 5, "count_include_pad", True)
    return argument(value, 6, "divisor_override") is None and (not padded or not counted)


def _size(node: fx.Node) -> int:
    shape = shape_of(node)
    assert shape is not None
    return torch.Size(shape[1:]).numel()


def _describe(move: _Move, here: int) -> str:
    if move.left == 0:
        return "moved into the layers before it"
    where = f"{move.left} values instead of {here}"
    return f"moved into {move.taken} layers before it, left on {where}" if move.taken else f"moved to {where}"


def _name(node: fx.Node) -> str:
    return (
        "an output of the network"
        if node.op == "output"
        else "an input"
        if node.op == "placeholder"
        else str(node.target)
    )

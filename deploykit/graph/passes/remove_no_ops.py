"""Remove operations that return their input unchanged: inactive dropout, copies, reshapes to the same shape."""

from __future__ import annotations

from torch import Tensor, fx

from deploykit.graph.graph import (
    Graph,
    Recorder,
    argument,
    aten,
    erase_unread,
    is_call,
    module_path,
    shape_of,
    with_rewrite,
)

NAME = "remove_no_ops"

RESCALED = "interpolation to the same size by a factor that is not 1 moves the samples"

_DROPOUT = (aten.dropout.default, aten.feature_dropout.default, aten.alpha_dropout.default)
_ALWAYS = (aten.alias.default, aten.detach.default, aten.lift_fresh_copy.default)
_CONVERSIONS = (aten._to_copy.default, aten.to.dtype, aten.to.dtype_layout, aten.to.device)
_COPIES = (aten.clone.default, aten.contiguous.default)
_SHAPES = (
    aten.view.default,
    aten._unsafe_view.default,
    aten.reshape.default,
    aten.expand.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.squeeze.default,
    aten.flatten.using_ints,
)
_PADS = (aten.pad.default, aten.constant_pad_nd.default)
_FACTORS = (aten.mul.Tensor, aten.mul.Scalar, aten.div.Tensor, aten.div.Scalar)
_OFFSETS = (aten.add.Tensor, aten.add.Scalar, aten.sub.Tensor, aten.sub.Scalar)
_INTERPOLATIONS = (aten.upsample_nearest2d.vec, aten.upsample_bilinear2d.vec)


def remove_no_ops(graph: Graph) -> Graph:
    """Return ``graph`` without the operations that return their input unchanged.

    A copy that changes the order of memory stays, since a later view relies on it; so does an interpolation to
    the same size by a factor other than 1. ``x + 0`` turns a negative zero into a positive one, and counts as
    unchanged.
    """
    return with_rewrite(graph, NAME, rewrite)


def rewrite(module: fx.GraphModule, recorder: Recorder) -> None:
    """Remove the no-ops of ``module`` in place and note them."""
    for node in list(module.graph.nodes):
        source = unchanged(node)
        if source is not None:
            recorder.fired((module_path(node),), f"removed {node.target}")
            node.replace_all_uses_with(source)
            erase_unread(module, node)
        elif is_call(node, *_INTERPOLATIONS) and shape_of(node) == shape_of(node.args[0]):
            recorder.skipped(module_path(node), RESCALED)


def unchanged(node: fx.Node) -> fx.Node | None:
    """Return the tensor that ``node`` returns unchanged, or None where it computes something."""
    if node.op != "call_function" or not node.args:
        return None
    if is_call(node, aten.cat.default):
        tensors = node.args[0]
        only = tensors[0] if isinstance(tensors, (list, tuple)) and len(tensors) == 1 else None
        return only if isinstance(only, fx.Node) else None
    source = node.args[0]
    if not isinstance(source, fx.Node) or not _same_kind(node, source):
        return None
    return source if _is_no_op(node, source) else None


def _same_kind(node: fx.Node, source: fx.Node) -> bool:
    value, before = node.meta.get("val"), source.meta.get("val")
    return (
        isinstance(value, Tensor)
        and isinstance(before, Tensor)
        and shape_of(node) is not None
        and shape_of(node) == shape_of(source)
        and value.dtype == before.dtype
        and value.device == before.device
    )


def _is_no_op(node: fx.Node, source: fx.Node) -> bool:
    """Whether ``node``, of the shape and dtype of ``source``, returns it unchanged."""
    if is_call(node, *_DROPOUT):
        return argument(node, 2, "train") is False
    if is_call(node, *_CONVERSIONS, *_COPIES):
        return bool(node.meta["val"].stride() == source.meta["val"].stride())
    if is_call(node, *_PADS):
        widths = argument(node, 1, "pad")
        return isinstance(widths, (list, tuple)) and all(width == 0 for width in widths)
    if is_call(node, *_FACTORS):
        return argument(node, 1, "other") == 1
    if is_call(node, *_OFFSETS):
        return argument(node, 1, "other") == 0
    if is_call(node, *_INTERPOLATIONS):
        position = 3 if node.target is aten.upsample_bilinear2d.vec else 2
        factors = argument(node, position, "scale_factors")
        return factors is None or all(factor == 1 for factor in factors)  # type: ignore[attr-defined]
    if is_call(node, aten.permute.default):
        dims = argument(node, 1, "dims")
        rank = len(node.meta["val"].shape)
        return isinstance(dims, (list, tuple)) and [dim % rank for dim in dims] == list(range(rank))
    if is_call(node, aten.transpose.int):
        rank = len(node.meta["val"].shape)
        first, second = argument(node, 1, "dim0"), argument(node, 2, "dim1")
        return isinstance(first, int) and isinstance(second, int) and first % rank == second % rank
    if is_call(node, aten.slice.Tensor):
        return argument(node, 4, "step", 1) == 1
    return is_call(node, *_ALWAYS, *_SHAPES)

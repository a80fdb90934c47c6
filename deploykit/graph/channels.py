"""What the passes that look at channels know of the operations: which act on each channel alone, and with what.

A value is (N, C, H, W), its channels on axis 1.
"""

from __future__ import annotations

from torch import fx

from deploykit.graph.graph import argument, aten, is_call, shape_of

RANK = 4

# Each output value depends on one input value, by the same function for every channel.
POINTWISE = (
    aten.relu.default, aten.relu6.default, aten.hardtanh.default, aten.hardswish.default, aten.hardsigmoid.default,
    aten.sigmoid.default, aten.tanh.default, aten.silu.default, aten.gelu.default, aten.elu.default, aten.selu.default,
    aten.celu.default, aten.mish.default, aten.leaky_relu.default, aten.softplus.default, aten.neg.default,
    aten.abs.default, aten.exp.default, aten.log.default, aten.sqrt.default, aten.rsqrt.default, aten.clamp.default,
    aten.clamp_min.default, aten.pow.Tensor_Scalar, aten.rsub.Scalar, aten.add.Scalar, aten.sub.Scalar,
    aten.mul.Scalar, aten.div.Scalar, aten.clone.default, aten.contiguous.default, aten.dropout.default,
)  # fmt: skip
# Each output channel depends on the input channel of the same number alone, by the same function for every channel.
SPATIAL = (
    aten.max_pool2d.default, aten.avg_pool2d.default, aten.adaptive_avg_pool2d.default,
    aten.adaptive_max_pool2d.default, aten.upsample_bilinear2d.vec, aten.upsample_nearest2d.vec,
    aten.upsample_bicubic2d.vec, aten.constant_pad_nd.default, aten.pad.default,
)  # fmt: skip
BINARY = (
    aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor, aten.maximum.default, aten.minimum.default,
)  # fmt: skip
# Positions of the weights that hold one number for each channel.
PER_CHANNEL = {aten.batch_norm.default: (1, 2, 3, 4), aten.prelu.default: (1,)}
RESIZES = (aten.upsample_bilinear2d.vec, aten.upsample_nearest2d.vec)


def channels_of(node: object) -> int | None:
    """Return the number of channels of a value (N, C, H, W), or None for any other."""
    shape = shape_of(node)
    return shape[1] if shape is not None and len(shape) == RANK else None


def positions_of(node: object) -> int:
    """Return the height times the width of a value (N, C, H, W) of static shape."""
    shape = shape_of(node)
    assert shape is not None
    return shape[2] * shape[3]


def is_channelwise(node: fx.Node) -> bool:
    """Whether ``node`` does the same with every channel of its first argument, each by itself, and has no weights."""
    if channels_of(node) is None or not node.args or channels_of(node.args[0]) != channels_of(node):
        return False
    if is_call(node, aten.mean.dim):
        axes = argument(node, 1, "dim")
        return isinstance(axes, (list, tuple)) and {int(a) % RANK for a in axes} <= {2, 3}
    if is_call(node, aten.pad.default, aten.constant_pad_nd.default):
        widths = argument(node, 1, "pad")
        return isinstance(widths, (list, tuple)) and len(widths) <= 4
    return is_call(node, *POINTWISE, *SPATIAL) and len(node.all_input_nodes) == 1


def concatenated(node: object) -> list[fx.Node] | None:
    """Return the values that ``node`` concatenates along their channels, or None where it does not."""
    if not isinstance(node, fx.Node) or not is_call(node, aten.cat.default) or channels_of(node) is None:
        return None
    parts = node.args[0]
    axis = argument(node, 1, "dim", 0)
    if axis not in (1, 1 - RANK) or not isinstance(parts, (list, tuple)):
        return None
    if not all(isinstance(part, fx.Node) and channels_of(part) is not None for part in parts):
        return None
    return [part for part in parts if isinstance(part, fx.Node)]

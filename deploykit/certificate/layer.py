"""Read one node as a layer with weights: convolution of any rank, transposed convolution, linear layer."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx

from deploykit.graph.graph import argument, aten, is_call, shape_of

CONVOLUTION, TRANSPOSED, LINEAR = "convolution", "transposed convolution", "linear"

_CONVOLUTIONS = (
    aten.conv1d.default,
    aten.conv1d.padding,
    aten.conv2d.default,
    aten.conv2d.padding,
    aten.conv3d.default,
    aten.conv3d.padding,
)
_TRANSPOSED = (aten.conv_transpose1d.default, aten.conv_transpose2d.input, aten.conv_transpose3d.input)


@dataclass(frozen=True)
class Layer:
    """The geometry of a layer, one number per spatial axis, and the nodes of its weight and bias.

    ``padding`` is at the top and left; a linear layer has no axes and one group.
    """

    kind: str
    weight: object
    bias: object
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1


def read_layer(node: fx.Node) -> Layer | None:
    """Return ``node`` as a layer, or None where it is none."""
    weight, bias = argument(node, 1, "weight"), argument(node, 2, "bias")
    if is_call(node, aten.linear.default):
        return Layer(LINEAR, weight, bias)
    shape = shape_of(weight)
    if shape is None or not is_call(node, *_CONVOLUTIONS, *_TRANSPOSED, aten.convolution.default):
        return None
    axes = len(shape) - 2
    general = is_call(node, aten.convolution.default)
    stride = _per_axis(argument(node, 3, "stride", 1), axes)
    if is_call(node, *_CONVOLUTIONS) or (general and not argument(node, 6, "transposed")):
        dilation = _per_axis(argument(node, 5, "dilation", 1), axes)
        groups = argument(node, 8 if general else 6, "groups", 1)
        padding = _padding(argument(node, 4, "padding", 0), shape[2:], dilation)
        kind = CONVOLUTION
    else:
        dilation = _per_axis(argument(node, 5 if general else 7, "dilation", 1), axes)
        groups = argument(node, 8 if general else 6, "groups", 1)
        padding = _per_axis(argument(node, 4, "padding", 0), axes)
        kind = TRANSPOSED
    assert isinstance(groups, int)
    return Layer(kind, weight, bias, stride, padding, dilation, groups)


def _padding(padding: object, kernel: tuple[int, ...], dilation: tuple[int, ...]) -> tuple[int, ...]:
    if padding == "same":
        return tuple(step * (size - 1) // 2 for step, size in zip(dilation, kernel, strict=True))
    return (0,) * len(kernel) if padding == "valid" else _per_axis(padding, len(kernel))


def _per_axis(value: object, axes: int) -> tuple[int, ...]:
    numbers = [value] if isinstance(value, int) else list(value)  # type: ignore[call-overload]
    return tuple(numbers) if len(numbers) == axes else (numbers[0],) * axes

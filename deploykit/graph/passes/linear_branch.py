"""Read one term of a sum as a branch: a chain of linear operations from one tensor, written as one convolution."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx

from deploykit.graph.algebra import Kernel, compose, identity_kernel, scale_outputs
from deploykit.graph.graph import shape_of, sources
from deploykit.graph.passes.linear_step import Affine, Border, Pair, Step, Window, read_step

BORDER_SHIFT = "zero padding follows a shift: exact inside and wrong at the border"
BORDER_VALUE = "its border does not hold the response to zero of what is before it"
BORDER_AFTER_KERNEL = "padding follows a kernel larger than 1x1"
TWO_KERNELS = "two kernels larger than 1x1 in a row"

# The border's constant and the branch's bias are two float64 computations of one number.
_SAME_NUMBER = 1e-13


@dataclass(frozen=True)
class Branch:
    """``factor`` times a chain from ``source`` to ``leaf``: one convolution without its lower and right padding.

    Tap (i, j) of output (y, x) reads the pixel ``stride * (y, x) - offset + dilation * (i, j)``, zero outside.
    ``macs`` is the work of the chain as it stands, per image. ``anchor`` is its first convolution, if any.
    """

    leaf: fx.Node
    source: fx.Node
    kernel: Kernel
    stride: Pair
    offset: Pair
    dilation: Pair
    macs: int
    anchor: fx.Node | None
    modules: tuple[str, ...]

    @property
    def groups(self) -> int:
        """The groups of the convolution."""
        return self.kernel.groups

    @property
    def size(self) -> Pair:
        """Height and width of the kernel."""
        return self.kernel.weight.shape[2], self.kernel.weight.shape[3]

    def scaled(self, factor: float) -> Branch:
        """Return ``factor`` times this branch."""
        if factor == 1:
            return self
        kernel = Kernel(self.kernel.weight * factor, self.kernel.bias * factor, self.kernel.groups)
        return replace(self, kernel=kernel)


def chain(module: fx.GraphModule, leaf: fx.Node) -> list[Step]:
    """Return the linear operations that end in ``leaf``, first one first; none of their results has another reader.

    An empty chain is the identity: ``leaf`` itself is the tensor that the branch starts from.
    """
    steps: list[Step] = []
    node = leaf
    while len(node.users) == 1:
        step = read_step(module, node)
        if step is None:
            break
        steps.insert(0, step)
        node = step.source
    return steps


def read_branch(leaf: fx.Node, steps: list[Step]) -> Branch | str:
    """Return the branch that ``steps`` make, or why they are not exactly one convolution."""
    source = steps[0].source if steps else leaf
    shape = shape_of(source)
    assert shape is not None
    kernel = Kernel(identity_kernel(shape[1], shape[1]), torch.zeros(shape[1], dtype=torch.float64), shape[1])
    branch: Branch | str = Branch(leaf, source, kernel, (1, 1), (0, 0), (1, 1), 0, None, ())
    for step in steps:
        assert isinstance(branch, Branch)
        operation = step.operation
        if isinstance(operation, Affine):
            branch = _then_affine(branch, operation, _values(step.node))
        elif isinstance(operation, Border):
            branch = _then_border(branch, operation)
        elif isinstance(operation, Window):
            branch = _then_window(branch, operation, step.node)
        else:
            branch = operation
        if isinstance(branch, str):
            return branch
        branch = replace(branch, modules=(*branch.modules, *sources(step.node)))
    return branch


def _values(node: fx.Node) -> int:
    """Return how many values ``node`` computes for one image."""
    shape = shape_of(node)
    assert shape is not None
    return math.prod(shape[1:])


def _then_affine(branch: Branch, affine: Affine, values: int) -> Branch:
    weight = scale_outputs(branch.kernel.weight, affine.scale)
    bias = branch.kernel.bias * affine.scale + affine.shift
    return replace(
        branch,
        kernel=Kernel(weight, bias, branch.groups),
        macs=branch.macs + affine.macs_per_value * values,
    )


def _then_border(branch: Branch, border: Border) -> Branch | str:
    if not branch.kernel.is_pointwise:
        return BORDER_AFTER_KERNEL
    if not _same(branch.kernel.bias, border.value):
        return BORDER_VALUE if bool(border.value.any()) else BORDER_SHIFT
    return replace(branch, offset=_add(branch.offset, _times(branch.stride, border.offset)))


def _then_window(branch: Branch, window: Window, node: fx.Node) -> Branch | str:
    if window.pads and not branch.kernel.is_pointwise:
        return BORDER_AFTER_KERNEL
    if window.pads and bool(branch.kernel.bias.any()):
        return BORDER_SHIFT
    if not (branch.kernel.is_pointwise or window.kernel.is_pointwise):
        return TWO_KERNELS
    before, after = branch.kernel, window.kernel
    kernel = compose(before, after)
    # Strided by the 1x1 convolution before it, a window's taps lie that much further apart.
    spread = _times(branch.stride, window.dilation) if before.is_pointwise else branch.dilation
    return replace(
        branch,
        kernel=kernel,
        stride=_times(branch.stride, window.stride),
        offset=_add(branch.offset, _times(branch.stride, window.offset)),
        dilation=spread,
        macs=branch.macs + _values(node) * after.weight[0].numel(),
        anchor=branch.anchor or (node if window.is_convolution else None),
    )


def _same(one: Tensor, other: Tensor) -> bool:
    scale = max(float(one.abs().max()), float(other.abs().max()))
    return bool(((one - other).abs() <= _SAME_NUMBER * scale).all())


def _add(one: Pair, other: Pair) -> Pair:
    return one[0] + other[0], one[1] + other[1]


def _times(one: Pair, other: Pair) -> Pair:
    return one[0] * other[0], one[1] * other[1]

"""A resize that a target does not have becomes two matrix products.

Algebra: resizing is linear and treats rows and columns apart: ``A_rows · x · A_columnsᵀ``, where column ``i`` of a
matrix is what the resize makes of the unit vector ``i``. So the matrices come from the resize itself, in float64.
Rewritten are bicubic and antialiased ones, ``nearest-exact``, and bilinear ones by a factor that is not the ratio of
the sizes: PyTorch places samples by the factor that it was given, Core ML's converter refuses that, and TFLite's
places them by the sizes, which moves them by up to a pixel.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from deploykit.graph.graph import Graph, Recorder, add_weight, aten, calls, module_path, shape_of, stamp, weight_path

NAME = "resize_as_products"

NOT_STATIC = "the size is not static"
_ALWAYS = (
    aten.upsample_bicubic2d.vec,
    aten._upsample_bicubic2d_aa.vec,
    aten._upsample_bilinear2d_aa.vec,
    aten._upsample_nearest_exact2d.vec,
)


def resize_as_products(graph: Graph) -> Graph:
    """Return ``graph`` with the resizes that this module names written as products with constant matrices."""
    graph = graph.copy()
    record = Recorder(NAME)
    for node in calls(graph.module.graph, *_ALWAYS, aten.upsample_bilinear2d.vec):
        source, target = shape_of(node.args[0]), shape_of(node)
        if source is None or target is None:
            record.skipped(module_path(node), NOT_STATIC)
            continue
        if node.target is aten.upsample_bilinear2d.vec and not placed_by_factor(node, source, target):
            continue
        result = _products(graph.module, node, source[-2:], target[-2:])
        node.replace_all_uses_with(result)
        record.fired([module_path(node)], f"{source[-2]}x{source[-1]} to {target[-2]}x{target[-1]}")
    return record.finish(graph)


def placed_by_factor(node: fx.Node, source: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Whether the bilinear resize ``node`` places its samples by a factor that is not the ratio of the sizes."""
    align_corners, factors = (*node.args, None)[2:4]
    if align_corners or not isinstance(factors, (list, tuple)):
        return False
    return any(size * factor != wanted for size, factor, wanted in zip(source[-2:], factors, target[-2:], strict=True))


def _products(module: fx.GraphModule, node: fx.Node, source: tuple[int, ...], target: tuple[int, ...]) -> fx.Node:
    """Return ``((x · A_columnsᵀ)ᵀ · A_rowsᵀ)ᵀ``: both matrices stand where the weight of a linear layer stands."""
    x: Any = node.args[0]
    value = x.meta["val"]
    for axis, leaf in ((1, "columns"), (0, "rows")):
        matrix = _matrix(node, axis, source[axis], target[axis]).to(value.dtype)
        weight = add_weight(module, weight_path(node, f"{leaf}_resize"), matrix, node)
        with module.graph.inserting_before(node):
            resized = stamp(module.graph.call_function(aten.linear.default, (x, weight)), node)
            x = stamp(module.graph.call_function(aten.transpose.int, (resized, -2, -1)), node)
        resized.meta["val"] = value = value.new_empty((*value.shape[:-1], target[axis]))
        x.meta["val"] = value = value.transpose(-2, -1)
    result: fx.Node = x
    return result


def _matrix(node: fx.Node, axis: int, size: int, wanted: int) -> Tensor:
    """Return the matrix (wanted, size) of the resize along ``axis``, 0 for rows: the resize of unit vectors."""
    exact = node.target is aten._upsample_nearest_exact2d.vec
    options = () if exact else node.args[2:3]
    factors = (*node.args, None)[2 + len(options)]
    given = factors[axis] if isinstance(factors, (list, tuple)) else None
    # Two columns: a single one looks like another memory layout, which the antialiased kernels misread.
    units = torch.eye(size, dtype=torch.float64).view(1, size, size, 1).repeat(1, 1, 1, 2)
    resize: Any = node.target
    if given is None:
        resized = resize(units, [wanted, 2], *options, None)
    else:
        resized = resize(units, None, *options, [given, 1.0])
    matrix: Tensor = resized[0, :, :, 0].t()
    return matrix.contiguous()

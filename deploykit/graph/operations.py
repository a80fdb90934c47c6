"""What a captured graph executes, as the operations that a convention counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import fx

from deploykit.graph.conventions import Kind, Operation, einsum_inner
from deploykit.graph.graph import Graph, argument, module_path, shape_of

# ATen operations by kind, without their overloads; other element-wise ones are known by their tag.
_KINDS: dict[Kind, tuple[str, ...]] = {
    Kind.CONVOLUTION: ("conv1d", "conv2d", "conv3d", "convolution"),
    Kind.TRANSPOSED_CONVOLUTION: ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
    Kind.LINEAR: ("linear",),
    Kind.MATRIX_PRODUCT: (
        *("matmul", "mm", "bmm", "mv", "dot", "addmm", "addmv", "baddbmm"),
        *("einsum", "scaled_dot_product_attention"),
    ),
    Kind.BATCH_NORM: ("batch_norm",),
    Kind.NORMALISATION: ("layer_norm", "group_norm", "instance_norm"),
    Kind.ACTIVATION: (
        *("relu", "relu6", "hardtanh", "prelu", "leaky_relu", "rrelu", "elu", "selu", "celu", "gelu", "silu", "mish"),
        *("sigmoid", "hardsigmoid", "hardswish", "tanh", "softplus", "log_sigmoid", "threshold", "glu"),
    ),
    Kind.ADAPTIVE_POOLING: ("adaptive_avg_pool2d",),
    Kind.BILINEAR_RESIZE: ("upsample_bilinear2d",),
    Kind.NEAREST_RESIZE: ("upsample_nearest2d",),
    Kind.GRID_SAMPLE: ("grid_sampler", "grid_sampler_2d"),
    Kind.OTHER: (
        *("avg_pool1d", "avg_pool2d", "avg_pool3d", "max_pool1d", "max_pool2d", "max_pool3d"),
        *("max_pool2d_with_indices", "adaptive_avg_pool1d", "adaptive_avg_pool3d", "adaptive_max_pool1d"),
        *("adaptive_max_pool2d", "upsample_bicubic2d", "upsample_linear1d", "upsample_trilinear3d"),
        *("upsample_nearest1d", "upsample_nearest3d", "_upsample_nearest_exact2d", "_upsample_bilinear2d_aa"),
        *("softmax", "log_softmax", "logsumexp", "sum", "mean", "prod", "max", "min", "amax", "amin", "argmax"),
        *("argmin", "var", "std", "var_mean", "norm", "linalg_vector_norm", "cumsum", "topk", "sort", "any", "all"),
    ),
    Kind.MOVE: (
        *("view", "_unsafe_view", "reshape", "permute", "transpose", "t", "expand", "unsqueeze", "squeeze", "flatten"),
        *("clone", "contiguous", "alias", "detach", "cat", "stack", "slice", "select", "split", "split_with_sizes"),
        *("chunk", "unbind", "pad", "constant_pad_nd", "reflection_pad2d", "replication_pad2d", "index", "embedding"),
        *("index_select", "gather", "scatter", "slice_scatter", "select_scatter", "index_put", "masked_fill", "where"),
        *("flip", "roll", "repeat", "repeat_interleave", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle"),
        *("zeros", "ones", "full", "empty", "arange", "linspace", "eye", "scalar_tensor", "zeros_like", "ones_like"),
        *("full_like", "empty_like", "new_zeros", "new_ones", "new_full", "lift_fresh_copy", "copy", "movedim"),
        *("_to_copy", "to", "unfold", "im2col", "tril", "triu", "dropout"),
    ),
}
_KIND_OF = {name: kind for kind, names in _KINDS.items() for name in names}
_PRODUCTS_AFTER_A_SUM = ("addmm", "addmv", "baddbmm")
_SELECTION = "getitem"


def graph_operations(graph: Graph) -> tuple[Operation, ...]:
    """Return what ``graph`` executes, in order; taking one result of several is no operation.

    An operation that is not known, or whose shapes are not, is of kind ``UNKNOWN``: never an error.
    """
    results = set(graph.module.graph.output_node().all_input_nodes)
    return tuple(_operation(node, node in results) for node in graph.module.graph.nodes if _executes(node))


def _executes(node: fx.Node) -> bool:
    return node.op in ("call_function", "call_module", "call_method") and operation_name(node) != _SELECTION


def operation_name(node: fx.Node) -> str:
    """Return the name of what ``node`` calls: an ATen operation without its namespace and overload."""
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return str(target._schema.name).removeprefix("aten::")
    return str(getattr(target, "__name__", target))


def _operation(node: fx.Node, at_output: bool) -> Operation:
    name = operation_name(node)
    kind = _kind(node, name)
    first = node.args[0] if node.args else None
    plain = Operation(
        name, kind, module_path(node), _values(shape_of(first)), _values(shape_of(node)), at_output=at_output
    )
    if kind in (Kind.CONVOLUTION, Kind.TRANSPOSED_CONVOLUTION, Kind.LINEAR):
        return _with_kernel(node, plain)
    if kind is Kind.MATRIX_PRODUCT:
        inner = _inner(node, name)
        return replace(plain, kernel=inner, positions=plain.outputs) if inner else replace(plain, kind=Kind.UNKNOWN)
    if kind in (Kind.BATCH_NORM, Kind.NORMALISATION):
        return replace(
            plain, scaled=argument(node, 2 if name in ("layer_norm", "group_norm") else 1, "weight") is not None
        )
    return plain


def _kind(node: fx.Node, name: str) -> Kind:
    if name == "convolution" and argument(node, 6, "transposed"):
        return Kind.TRANSPOSED_CONVOLUTION
    if name in _KIND_OF:
        return _KIND_OF[name]
    tags = node.target.tags if isinstance(node.target, torch._ops.OpOverload) else ()
    return Kind.OTHER if torch.Tag.pointwise in tags else Kind.UNKNOWN


def _values(shape: tuple[int, ...] | None) -> int:
    return 0 if shape is None else math.prod(shape)


def _with_kernel(node: fx.Node, plain: Operation) -> Operation:
    """Return ``plain`` with its kernel; weights (out, in / groups, ...), transposed ones (in, out / groups, ...)."""
    weight = shape_of(argument(node, 1, "weight"))
    if not weight or not math.prod(weight) * plain.inputs * plain.outputs:
        return replace(plain, kind=Kind.UNKNOWN)
    known = replace(plain, kernel=math.prod(weight), bias=argument(node, 2, "bias") is not None)
    if plain.kind is Kind.CONVOLUTION:
        return replace(known, positions=plain.outputs // weight[0])
    if plain.kind is Kind.LINEAR:
        return replace(known, positions=plain.inputs // weight[-1])
    groups = argument(node, 8 if plain.name == "convolution" else 6, "groups", 1)
    assert isinstance(groups, int)
    return replace(
        known,
        positions=plain.inputs // weight[0],
        output_positions=plain.outputs // (weight[1] * groups),
    )


def _inner(node: fx.Node, name: str) -> int | None:
    """Return how many multiplications make one value of a matrix product, or None where that is not known."""
    if name == "einsum":
        equation, operands = node.args[:2]
        assert isinstance(equation, str)
        assert isinstance(operands, Sequence)
        return einsum_inner(equation, [shape_of(operand) for operand in operands])
    if name == "scaled_dot_product_attention":
        query, key, value = (shape_of(operand) for operand in node.args[:3])
        # Scores (L, S) cost E each and results (L, Ev) cost S each: S * (E + Ev) / Ev for one result.
        if not query or not key or not value or key[-2] * query[-1] % value[-1]:
            return None
        return key[-2] + key[-2] * query[-1] // value[-1]
    left = shape_of(node.args[1 if name in _PRODUCTS_AFTER_A_SUM else 0])
    return left[-1] if left else None

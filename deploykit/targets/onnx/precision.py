"""An ONNX model in half precision, except where it computes the places that a ``GridSample`` reads.

A coordinate between -1 and 1 has a step of 2^-11 in half precision: up to 1/64 of a pixel in 64 columns, 1/32 in 128.
The features themselves keep 11 bits, so that rounding the coordinates can cost more than rounding the features.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection

import onnx
from onnx import TensorProto
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

# What may stand between a flow and the coordinates; a convolution is the flow's, and rounds as any other.
_ARITHMETIC = frozenset({
    "Add", "Sub", "Mul", "Div", "Clip", "Concat", "Transpose", "Reshape", "Unsqueeze", "Squeeze", "Slice", "Split",
    "Gather", "Expand",
})  # fmt: skip


def half_precision(
    model: onnx.ModelProto, named: Collection[str] = (), float32_values: Collection[str] = ()
) -> onnx.ModelProto:
    """Return ``model``, whose nodes have names of their own, in float16 with float32 inputs and outputs.

    What computes ``float32_values``, some of the values ``named`` after the lowered graph, stays in float32.
    """
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    # The converter takes the recorded type of a weight for the one that it will have, and is wrong where it stays.
    weights = {item.name for item in copied.graph.initializer}
    _keep_values(copied.graph, lambda value: value.name not in weights)
    kept = [*float32_nodes(copied), *_computing(copied.graph, frozenset(named), frozenset(float32_values))]
    half = OnnxModel(convert_float_to_float16(copied, keep_io_types=True, node_block_list=kept))
    _join_casts(half.model.graph)
    # The casts of inputs and outputs are appended at the end, behind the nodes that read them.
    half.topological_sort()
    return half.model


def float32_nodes(model: onnx.ModelProto) -> list[str]:
    """Return the names of the nodes that stay in float32: each ``GridSample``, and what only computes its grid."""
    readers: dict[str, list[tuple[onnx.NodeProto, int]]] = defaultdict(list)
    for node in model.graph.node:
        for place, value in enumerate(node.input):
            readers[value].append((node, place))
    returned = {output.name for output in model.graph.output}
    kept: list[str] = []
    for node in reversed(model.graph.node):
        readings = [reading for value in node.output for reading in readers[value]]
        computes_grid = (
            node.op_type in _ARITHMETIC
            and bool(readings)
            and returned.isdisjoint(node.output)
            and all(place == 1 if reader.op_type == "GridSample" else reader.name in kept for reader, place in readings)
        )
        if node.op_type == "GridSample" or computes_grid:
            kept.append(node.name)
    return kept


def _computing(graph: onnx.GraphProto, named: frozenset[str], wanted: frozenset[str]) -> list[str]:
    """Return the names of the nodes that compute ``wanted``, and of the steps on the way: values that are not named."""
    needed, found = set(wanted), []
    for node in reversed(graph.node):
        if not needed.isdisjoint(node.output):
            found.append(node.name)
            needed.update(value for value in node.input if value not in named)
    return found


def _join_casts(graph: onnx.GraphProto) -> None:
    """Let float32 nodes of ``graph`` read each other: the converter rounds between them, and casts a value twice."""
    made: dict[str, onnx.NodeProto] = {}
    for node in list(graph.node):
        if node.output[0] in made:
            graph.node.remove(node)
        made.update(dict.fromkeys(node.output, node))
    whole = {
        node.output[0]: made[node.input[0]].input[0]
        for node in graph.node
        if _casts_to(node, TensorProto.FLOAT) and _casts_to(made.get(node.input[0]), TensorProto.FLOAT16)
    }
    # The network's own casts, of a comparison for one, are no rounding.
    types = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    whole = {name: own for name, own in whole.items() if types.get(own, TensorProto.FLOAT) == TensorProto.FLOAT}
    _return_whole(graph, whole, made)
    for node in graph.node:
        for place, value in enumerate(node.input):
            node.input[place] = whole.get(value, value)
    # First the casts that were passed by, then those that only they read.
    for dtype in (TensorProto.FLOAT, TensorProto.FLOAT16):
        read = {value for node in graph.node for value in node.input} | {output.name for output in graph.output}
        for node in [node for node in graph.node if _casts_to(node, dtype) and node.output[0] not in read]:
            graph.node.remove(node)
    left = {value for node in graph.node for value in node.output}
    known = {value.name: value for value in graph.value_info if value.name in left}
    _keep_values(graph, lambda value: known.pop(value.name, None) is not None)


def _return_whole(graph: onnx.GraphProto, whole: dict[str, str], made: dict[str, onnx.NodeProto]) -> None:
    """Let float32 nodes give the outputs of ``graph`` themselves."""
    outputs = {output.name for output in graph.output}
    for name in outputs & whole.keys():
        own = whole.pop(name)
        if own not in made or own in outputs:
            continue
        graph.node.remove(made[name])
        renamed = {own: name}
        for node in graph.node:
            for values in (node.input, node.output):
                for place, value in enumerate(values):
                    values[place] = renamed.get(value, value)
        whole.update({value: name for value, kept in whole.items() if kept == own})


def _casts_to(node: onnx.NodeProto | None, dtype: int) -> bool:
    if node is None or node.op_type != "Cast":
        return False
    return any(attribute.name == "to" and attribute.i == dtype for attribute in node.attribute)


def _keep_values(graph: onnx.GraphProto, wanted: Callable[[onnx.ValueInfoProto], bool]) -> None:
    kept = [value for value in graph.value_info if wanted(value)]
    del graph.value_info[:]
    graph.value_info.extend(kept)

"""QuantizeLinear and DequantizeLinear written into a graph, with the integers of weights and biases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from deploykit.targets.integers import (
    activation_integers,
    bias_integers,
    require_finite_weight,
    weight_integers,
    weight_scales,
)
from deploykit.targets.onnx.weighted import Constants, Weighted
from deploykit.targets.quantized import Range

_LOWEST, _HIGHEST = 0, 255


class QdqWriter:
    """A copy of a model that is being given integers, layer by layer; ``model`` returns it whole."""

    def __init__(self, path: Path, model: onnx.ModelProto) -> None:
        self._path = path
        self._model = onnx.ModelProto()
        self._model.CopyFrom(model)
        self._nodes = {node.output[0]: node for node in self._model.graph.node if node.output}
        self._constants = Constants(model.graph)
        self._new: dict[str, onnx.TensorProto] = {}
        # Activation → its scale; nodes that come behind what computes it, or first where it is an input.
        self._scales: dict[str, float] = {}
        self._behind: dict[str, list[onnx.NodeProto]] = {}
        self._before: dict[str, list[onnx.NodeProto]] = {}
        self._rounded: set[str] = set()
        self.weights = 0

    @property
    def activations(self) -> int:
        """Return how many activations are integers."""
        return len(self._scales)

    def integers(self, layer: Weighted, taken: Range, made: Range, end: str) -> None:
        """Let ``layer`` read integers of the range ``taken``; those of its value, called ``end``, have ``made``."""
        node = self._nodes[layer.value]
        node.input[0] = self._quantized(layer.read, taken)
        self._store(layer, self._scales[layer.read])
        self._quantized(end, made)
        self._rounded.add(end)

    def weights_alone(self, layer: Weighted) -> None:
        """Store the weights of ``layer`` as integers, which become float32 before they are multiplied."""
        self._store(layer, None)

    def model(self) -> onnx.ModelProto:
        """Return the model: what reads a value that is integers reads these integers."""
        graph = self._model.graph
        nodes = [node for name in (item.name for item in graph.input) for node in self._behind.get(name, ())]
        for node in graph.node:
            for place, name in enumerate(node.input):
                if name in self._rounded:
                    node.input[place] = f"{name}_dequantized"
            nodes.extend(self._before.get(node.output[0], ()))
            nodes.append(node)
            nodes.extend(one for name in node.output for one in self._behind.get(name, ()))
        del graph.node[:]
        graph.node.extend(nodes)
        read = {name for node in nodes for name in node.input}
        initializers = [item for item in graph.initializer if item.name in read]
        del graph.initializer[:]
        graph.initializer.extend([*initializers, *self._new.values()])
        # What is recorded of a weight is no longer true of it.
        stated = [item for item in graph.value_info if item.name not in self._constants]
        del graph.value_info[:]
        graph.value_info.extend(stated)
        return self._model

    def _quantized(self, name: str, span: Range) -> str:
        """Return the name of what stands for the activation ``name`` after rounding it to integers over ``span``."""
        if name not in self._scales:
            numbers = activation_integers(span, _LOWEST, _HIGHEST)
            self._scales[name] = numbers.scale
            scale = self._constant(f"{name}_scale", np.array(numbers.scale, np.float32))
            zero = self._constant(f"{name}_zero_point", np.array(numbers.zero_point, np.uint8))
            integers, rounded = f"{name}_quantized", f"{name}_dequantized"
            self._behind[name] = [
                helper.make_node("QuantizeLinear", [name, scale, zero], [integers], f"{name}_QuantizeLinear"),
                helper.make_node("DequantizeLinear", [integers, scale, zero], [rounded], f"{name}_DequantizeLinear"),
            ]
        return f"{name}_dequantized"

    def _store(self, layer: Weighted, input_scale: float | None) -> None:
        node = self._nodes[layer.value]
        weight = self._constants.array(layer.weight)
        require_finite_weight(self._path, layer.weight, weight)
        bias = self._constants.array(layer.bias) if layer.bias and input_scale is not None else None
        if bias is not None:
            require_finite_weight(self._path, layer.bias, bias)
        scales = weight_scales(weight, layer.axis, bias, input_scale)
        before = self._before.setdefault(layer.value, [])
        # Two operations may read one weight, and have scales of their own for it.
        own = f"{layer.value}_weight"
        integers = weight_integers(weight, scales, layer.axis)
        node.input[1] = self._dequantize(before, own, integers, scales, layer.axis)
        self.weights += 1
        if bias is not None and input_scale is not None:
            product = scales * np.float32(input_scale)
            whole = bias_integers(bias, product).astype(np.int32)
            node.input[2] = self._dequantize(before, f"{layer.value}_bias", whole, product, 0)

    def _dequantize(
        self,
        before: list[onnx.NodeProto],
        name: str,
        integers: NDArray[np.int8] | NDArray[np.int32],
        scales: NDArray[np.float32],
        axis: int,
    ) -> str:
        """Append what reads ``integers`` as floats; return its name.

        Weights have zero points of their own though they are 0: told to turn weights into uint8, ONNX Runtime writes
        others in their place, and fails where there are none or several weights share them.
        """
        stored, scale = self._constant(f"{name}_quantized", integers), self._constant(f"{name}_scale", scales)
        made = f"{name}_dequantized"
        read = [stored, scale]
        if integers.dtype == np.int8:
            read.append(self._constant(f"{name}_zero_point", np.zeros(len(scales), np.int8)))
        before.append(helper.make_node("DequantizeLinear", read, [made], f"{name}_DequantizeLinear", axis=axis))
        return made

    def _constant(self, name: str, value: NDArray[np.generic]) -> str:
        self._new.setdefault(name, numpy_helper.from_array(value, name))
        return name

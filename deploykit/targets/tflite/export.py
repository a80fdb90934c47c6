"""Write a graph as one TFLite file."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from operator import attrgetter
from pathlib import Path

import numpy as np
from torch import Tensor, fx, nn

from deploykit.records import PassReport
from deploykit.targets.base import ExportRequest, refused_by_converter
from deploykit.targets.exported import example_inputs, named_module, names_in_file
from deploykit.targets.tflite.flatbuffer import read_model, write_model
from deploykit.targets.tflite.rewriting import rewrite
from deploykit.vocab import Layout, Precision

_IMAGE_RANK = 4


class _Named(nn.Module):
    """The graph with named inputs and outputs, its images in the layout of the file.

    The converter names each tensor after the module stack of its node: here that is the name of the node itself, so
    that a tensor of the file says which values of the graph it was made from.
    """

    def __init__(self, request: ExportRequest) -> None:
        super().__init__()
        self.network = named_module(request.graph)
        self.names = request.graph.outputs
        self.channels_last = request.plan.layout is Layout.NHWC
        for node in self.network.graph.nodes:
            node.meta = {"nn_module_stack": {node.name: ("", node.name)}} if node.op == "call_function" else {}

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Return name → output."""
        if self.channels_last:
            inputs = {k: x.permute(0, 3, 1, 2) if x.dim() == _IMAGE_RANK else x for k, x in inputs.items()}
        with fx.traceback.preserve_node_meta():
            values = fx.Interpreter(self.network).run(*inputs.values())
        if self.channels_last:
            values = [y.permute(0, 2, 3, 1) if y.dim() == _IMAGE_RANK else y for y in values]
        return dict(zip(self.names, values, strict=True))


def write(request: ExportRequest, path: Path) -> tuple[PassReport, ...]:
    """Write ``request`` to ``path`` with the names of its inputs and outputs in its signature.

    Returns a report of each rewrite of the file itself.

    Raises TargetError where the converter does not take the graph.
    """
    path.write_bytes(_converted(_Conversion(_digest(request), request)))
    reports = rewrite(path, request.plan.passes)
    if request.plan.precision is Precision.FP16:
        _halve_weights(path, names_in_file(request.graph, request.float32_values))
    _describe(path, request.metadata)
    return reports


@dataclass(frozen=True)
class _Conversion:
    """What is to be converted; equal where the ``digest`` of graph and layout is."""

    digest: str
    request: ExportRequest = field(compare=False)


# A file in half precision begins with the very file in float32, and half of the time goes into converting it.
@lru_cache(maxsize=1)
def _converted(conversion: _Conversion) -> bytes:
    """Return the file that the converter makes. Raises TargetError where it does not take the graph."""
    # Read once, when litert_torch is imported: its progress lines are never wanted.
    os.environ.setdefault("LITERT_TORCH_SHOW_PROGRESS", "n")
    import litert_torch

    request = conversion.request
    module = _Named(request).eval()
    examples = dict(zip((s.name for s in request.graph.inputs), example_inputs(request.graph.inputs), strict=True))
    if module.channels_last:
        examples = {k: x.permute(0, 2, 3, 1).contiguous() if x.dim() == _IMAGE_RANK else x for k, x in examples.items()}
    try:
        with tempfile.TemporaryDirectory(prefix="deploykit-") as folder:
            made = Path(folder) / "made.tflite"
            litert_torch.convert(module, sample_kwargs=examples).export(str(made))
            return made.read_bytes()
    except Exception as error:
        # Converters raise whatever their libraries raise; the cause stays chained.
        raise refused_by_converter("The TFLite converter", request.recipe.name, error) from error


def _digest(request: ExportRequest) -> str:
    graph = request.graph
    found = hashlib.sha256(repr((request.plan.layout, graph.inputs, graph.outputs)).encode())
    for node in graph.module.graph.nodes:
        found.update(repr((node.name, node.op, str(node.target), node.args, node.kwargs)).encode())
        if node.op == "get_attr":
            weight = attrgetter(node.target)(graph.module).detach().contiguous()
            found.update(repr((weight.dtype, tuple(weight.shape))).encode())
            found.update(weight.numpy().tobytes())
    return found.hexdigest()


def _halve_weights(path: Path, whole: Collection[str]) -> None:
    """Store the weights of the file in float16, but for those of the operations that compute the values ``whole``."""
    from ai_edge_quantizer import quantizer
    from ai_edge_quantizer.algorithm_manager import AlgorithmName
    from ai_edge_quantizer.qtyping import (
        ComputePrecision,
        OpQuantizationConfig,
        TensorDataType,
        TensorQuantizationConfig,
        TFLOperationName,
    )

    halved = quantizer.Quantizer(str(path))
    halved.update_quantization_recipe(
        regex=".*",
        operation_name=TFLOperationName.ALL_SUPPORTED,
        op_config=OpQuantizationConfig(
            weight_tensor_config=TensorQuantizationConfig(num_bits=16, dtype=TensorDataType.FLOAT),
            compute_precision=ComputePrecision.FLOAT,
        ),
        algorithm_key=AlgorithmName.FLOAT_CASTING,
    )
    for name in sorted(whole):
        # The name of a tensor lists every value of the graph that it was made from.
        halved.update_quantization_recipe(
            regex=rf"(^|;){re.escape(name)}(;|$)",
            operation_name=TFLOperationName.ALL_SUPPORTED,
            algorithm_key=AlgorithmName.NO_QUANTIZE,
        )
    half = path.with_suffix(".half.tflite")
    halved.quantize().export_model(str(half))
    half.replace(path)


def _describe(path: Path, metadata: Mapping[str, str]) -> None:
    """Give the file its description, and every other property as one metadata buffer."""
    import json

    from ai_edge_litert import schema_py_generated as schema

    from deploykit.targets.tflite.metadata import NAME

    model = read_model(path)
    model.description = metadata["description"].encode()
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(json.dumps(dict(sorted(metadata.items()))).encode(), dtype=np.uint8)
    entry = schema.MetadataT()
    entry.name, entry.buffer = NAME.encode(), len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]
    write_model(model, path)


def content_items(path: Path) -> list[bytes]:
    """Return what the file computes, in the order of execution: operations with their options, weights and wiring."""
    model = read_model(path)
    items = []
    for graph in model.subgraphs:
        numbers: dict[int, int] = {}
        for operator in graph.operators:
            code = model.operatorCodes[operator.opcodeIndex]
            options = vars(operator.builtinOptions) if operator.builtinOptions else {}
            tensors = [*operator.inputs, *operator.outputs]
            weights = [
                bytes(model.buffers[graph.tensors[index].buffer].data.tobytes())
                for index in operator.inputs
                if index >= 0 and model.buffers[graph.tensors[index].buffer].data is not None
            ]
            wiring = [numbers.setdefault(int(index), len(numbers)) for index in tensors]
            shapes = [[int(size) for size in graph.tensors[index].shape] if index >= 0 else None for index in tensors]
            shown = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in sorted(options.items())}
            items.append(b"\0".join([str((code.builtinCode, shown, wiring, shapes)).encode(), *weights]))
    return items

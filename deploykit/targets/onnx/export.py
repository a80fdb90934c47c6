"""Write a graph as one self-contained ONNX file."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxsim
import torch

from deploykit.records import PassReport
from deploykit.targets.base import ExportRequest, refused_by_converter
from deploykit.targets.exported import (
    example_inputs,
    exported_program,
    lowered_names,
    names_in_file,
    node_names,
    with_node_names,
)
from deploykit.vocab import Precision


def write(request: ExportRequest, path: Path) -> tuple[PassReport, ...]:
    """Write ``request`` to ``path``: simplified, with metadata properties, the same bytes each time.

    Nothing is rewritten on the file itself: no reports. Raises TargetError where the exporter does not take the graph.
    """
    graph, plan = request.graph, request.plan
    try:
        program = torch.onnx.export(
            exported_program(with_node_names(graph)),
            example_inputs(graph.inputs),
            dynamo=True,
            opset_version=plan.opset,
            input_names=[spec.name for spec in graph.inputs],
            output_names=list(graph.outputs),
            external_data=False,
            verbose=False,
        )
        assert program is not None
        _name_after_lowered(program)
        program.save(str(path))
        model, equal = onnxsim.simplify(onnx.load(str(path)))
    except Exception as error:
        # Converters raise whatever their libraries raise; the cause stays chained.
        raise refused_by_converter("The ONNX exporter", request.recipe.name, error) from error
    if not equal:
        raise RuntimeError("onnxsim changed the results of the model")
    if plan.precision is Precision.FP16:
        from deploykit.targets.onnx.precision import half_precision

        named = names_in_file(graph, node_names(graph))
        model = half_precision(model, named, names_in_file(graph, request.float32_values))
    _clean(model, request)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))
    return ()


def _name_after_lowered(program: torch.onnx.ONNXProgram) -> None:
    """Name each value after the node of the lowered graph that it is: the exporter names it after one of its own."""
    assert program.exported_program is not None
    names = lowered_names(program.exported_program)
    graph = program.model.graph
    taken = {value.name for value in (*graph.inputs, *graph.outputs)} | set(graph.initializers)
    made = [value for node in graph for value in node.outputs if value.name not in taken]
    renamed = {name: new for name, new in names.items() if new not in taken}
    for number, value in enumerate(made):
        assert value.name is not None
        value.name = renamed.get(value.name) or f"step_{number}_"


def _clean(model: onnx.ModelProto, request: ExportRequest) -> None:
    """Leave out what belongs to the machine (traces, paths) and say what the file is."""
    from deploykit.version import __version__

    for node in model.graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer):
        value.ClearField("metadata_props")
        value.ClearField("doc_string")
    model.graph.ClearField("metadata_props")
    model.graph.name = request.recipe.name
    model.producer_name = "deploykit"
    model.producer_version = __version__
    model.doc_string = request.metadata["description"]
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, dict(sorted(request.metadata.items())))


def content_items(path: Path) -> list[bytes]:
    """Return what the file computes, free of names and of the order of its initializers: wiring by first mention."""
    model = onnx.load(str(path))
    weights = {item.name: onnx.numpy_helper.to_array(item) for item in model.graph.initializer}
    numbers: dict[str, int] = {}
    items = []
    for node in model.graph.node:
        wiring = [numbers.setdefault(name, len(numbers)) for name in (*node.input, *node.output)]
        read = [weights[name] for name in node.input if name in weights]
        attributes = sorted(attribute.SerializeToString(deterministic=True) for attribute in node.attribute)
        shapes = [(value.dtype.name, value.shape) for value in read]
        head = str((node.op_type, wiring, shapes)).encode()
        items.append(b"\0".join([head, *attributes, *(value.tobytes() for value in read)]))
    return items

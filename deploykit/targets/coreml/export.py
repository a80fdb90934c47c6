"""Write a graph as a Core ML package, the same bytes each time."""

from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np

from deploykit.errors import TargetError
from deploykit.recipe import Input
from deploykit.records import PassReport
from deploykit.targets.base import ExportRequest, refused_by_converter
from deploykit.targets.coreml.precision import half_precision
from deploykit.targets.exported import (
    exported_program,
    name_after_lowered,
    names_in_file,
    node_names,
    with_node_names,
)
from deploykit.vocab import ColorOrder, InputKind, Precision

_MODEL = "Data/com.apple.CoreML/model.mlmodel"
_PREVIEW_TYPE = "com.apple.coreml.model.preview.type"
_PREVIEW_PARAMETERS = "com.apple.coreml.model.preview.parameters"
_LABELS = "classes"
_CONVERSION_DATE = "com.github.apple.coremltools.conversion_date"


def write(request: ExportRequest, path: Path) -> tuple[PassReport, ...]:
    """Write ``request`` as the package ``path``, with its description, licence and image-segmentation preview.

    Nothing is rewritten on the file itself: no reports. Raises TargetError where the converter does not take the graph.
    """
    plan, recipe = request.plan, request.recipe
    try:
        program = exported_program(with_node_names(request.graph)).run_decompositions({})
        name_after_lowered(program)
        model = ct.convert(
            program,
            convert_to="mlprogram",
            inputs=[_input_type(item, plan.input_kind) for item in recipe.file.inputs],
            outputs=[ct.TensorType(name=name, dtype=np.float32) for name in request.graph.outputs],
            minimum_deployment_target=ct.target[plan.minimum_os],
            compute_precision=_half(request) if plan.precision is Precision.FP16 else ct.precision.FLOAT32,
            skip_model_load=True,
        )
    except Exception as error:
        # Converters raise whatever their libraries raise; the cause stays chained.
        raise refused_by_converter("The Core ML converter", recipe.name, error) from error
    _refuse_lost_outputs(model, request)
    _describe(model, request)
    model.save(str(path))
    _make_reproducible(path)
    return ()


def _half(request: ExportRequest) -> Any:
    named = names_in_file(request.graph, node_names(request.graph))
    return half_precision(named, names_in_file(request.graph, request.float32_values))


def _refuse_lost_outputs(model: Any, request: ExportRequest) -> None:
    """Raise TargetError where the converter made one output of two: it drops the name of an equal value."""
    kept = [output.name for output in model.get_spec().description.output]
    lost = [name for name in request.graph.outputs if name not in kept]
    if lost:
        raise TargetError(
            "A Core ML package cannot return the same values under two names.",
            where=request.recipe.name,
            found=f"{', '.join(lost)} equals another output",
            expected="outputs that differ",
            next_step="set deploy = false on one of the equal [[outputs]]",
        )


def _input_type(item: Input, kind: InputKind) -> Any:
    if kind is InputKind.IMAGE and item.kind == "image":
        layout = ct.colorlayout.BGR if item.color_order is ColorOrder.BGR else ct.colorlayout.RGB
        return ct.ImageType(name=item.name, shape=item.shape, color_layout=layout)
    # From iOS 16 on, the converter would make the tensors of an fp16 program fp16 too.
    return ct.TensorType(name=item.name, shape=item.shape, dtype=np.float32)


def _describe(model: Any, request: ExportRequest) -> None:
    recipe = request.recipe
    model.short_description = request.metadata["description"]
    model.license = request.metadata["license"]
    model.author = request.metadata["source"]
    model.version = request.metadata["version"]
    for item in recipe.file.inputs:
        model.input_description[item.name] = request.metadata[f"input.{item.name}"]
    for output in recipe.deployed():
        model.output_description[output.name] = output.meaning
    for key, value in request.metadata.items():
        model.user_defined_metadata[f"deploykit.{key}"] = value
    first = recipe.deployed()[0]
    if first.classes:
        model.user_defined_metadata[_PREVIEW_TYPE] = "imageSegmenter"
        colors = [
            f"#{(40 * index) % 256:02X}{(160 * index) % 256:02X}{(90 * index) % 256:02X}"
            for index in range(len(first.classes))
        ]
        model.user_defined_metadata[_PREVIEW_PARAMETERS] = json.dumps({"labels": list(first.classes), "colors": colors})
        model.user_defined_metadata[_LABELS] = ",".join(first.classes)


def _make_reproducible(path: Path) -> None:
    """Serialise the specification in canonical order, derive the identifiers, and drop what the converter leaves."""
    for item in path.iterdir():
        if item.name not in ("Data", "Manifest.json"):
            shutil.rmtree(item) if item.is_dir() else item.unlink()
    specification = ct.proto.Model_pb2.Model()
    specification.ParseFromString((path / _MODEL).read_bytes())
    specification.description.metadata.userDefined.pop(_CONVERSION_DATE, None)
    (path / _MODEL).write_bytes(specification.SerializeToString(deterministic=True))
    (path / _MODEL).chmod(0o644)
    manifest = json.loads((path / "Manifest.json").read_text())
    entries = manifest["itemInfoEntries"]
    names = {old: str(uuid.uuid5(uuid.NAMESPACE_URL, entry["path"])) for old, entry in entries.items()}
    manifest["itemInfoEntries"] = {names[old]: entries[old] for old in sorted(entries, key=lambda old: names[old])}
    manifest["rootModelIdentifier"] = names[manifest["rootModelIdentifier"]]
    (path / "Manifest.json").write_text(json.dumps(manifest, indent=4, sort_keys=True) + "\n")


def content_items(path: Path) -> list[bytes]:
    """Return what the package computes: its program and its weights, free of identifiers and metadata."""
    specification = ct.proto.Model_pb2.Model()
    specification.ParseFromString((path / _MODEL).read_bytes())
    specification.description.ClearField("metadata")
    weights = sorted((path / "Data").rglob("*.bin"))
    return [specification.SerializeToString(deterministic=True), *(item.read_bytes() for item in weights)]

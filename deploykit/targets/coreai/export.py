"""Write a graph as a Core AI asset, the same bytes each time."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from coreai.authoring import AIProgram
from coreai.authoring.asset import OSVersion
from coreai.runtime import AIModelAssetMetadata
from torch import fx

from deploykit.graph.graph import Graph, aten
from deploykit.records import PassReport
from deploykit.targets.base import ExportRequest, refused_by_converter
from deploykit.targets.coreai.bytecode import with_own_names
from deploykit.targets.coreai.client import Child
from deploykit.targets.coreai.coverage import decompositions
from deploykit.targets.coreai.precision import half_precision
from deploykit.targets.coreai.program import METADATA
from deploykit.targets.exported import exported_program, name_after_lowered, with_node_names
from deploykit.vocab import Precision

with warnings.catch_warnings():
    # It warns of a PyTorch whose version carries the name of a build.
    warnings.simplefilter("ignore")
    import coreai_torch

_CREATION_DATE = "creationDate"


def write(request: ExportRequest, path: Path) -> tuple[PassReport, ...]:
    """Write ``request`` as the asset ``path``, with its description, licence and properties.

    Nothing is rewritten on the file itself: no reports. Raises TargetError where the converter does not take the graph.
    """
    graph = with_node_names(request.graph)
    if request.plan.precision is Precision.FP16:
        graph = half_precision(graph, request.float32_values)
    try:
        program = _convert(graph)
    except Exception as error:
        # Converters raise whatever their libraries raise; the cause stays chained.
        raise refused_by_converter("The Core AI converter", request.recipe.name, error) from error
    with_own_names(program).save_asset(path, _described(request), _system(request.plan.minimum_os))
    _make_reproducible(path)
    return ()


def _convert(graph: Graph) -> AIProgram:
    exported = exported_program(_with_own_outputs(graph)).run_decompositions(decompositions())
    name_after_lowered(exported)
    # This mode alone notes which node an operation comes from; with the stack traces it would note files as well.
    converter = coreai_torch.TorchConverter(mode=coreai_torch.TorchConverter.Mode.DEBUG)
    converter.add_exported_program(
        exported, input_names=[spec.name for spec in graph.inputs], output_names=list(graph.outputs)
    )
    return converter.to_coreai()


def _with_own_outputs(graph: Graph) -> Graph:
    """Return a copy of ``graph`` that returns no node twice: the converter tells outputs apart by their nodes."""
    copied = graph.copy()
    output = copied.module.graph.output_node()
    seen: set[fx.Node] = set()

    def own(node: fx.Node) -> fx.Node:
        if node not in seen:
            seen.add(node)
            return node
        with copied.module.graph.inserting_before(output):
            return copied.module.graph.call_function(aten.clone.default, (node,))

    output.args = fx.node.map_arg(output.args, own)
    copied.module.recompile()
    return copied


def _system(minimum_os: str | None) -> OSVersion:
    """Return Core AI's name for the systems of one year, which all have one number."""
    return OSVersion(f"v{(minimum_os or '').removeprefix('iOS')}")


def _described(request: ExportRequest) -> AIModelAssetMetadata:
    said = AIModelAssetMetadata()
    said.author = request.metadata["source"]
    said.license = request.metadata["license"]
    said.model_description = request.metadata["description"]
    for key, value in request.metadata.items():
        said.set_custom(f"deploykit.{key}", value)
    return said


def _make_reproducible(path: Path) -> None:
    """Take the time out of the asset's description, and write it in order."""
    said: dict[str, Any] = json.loads((path / METADATA).read_text("utf-8"))
    said.pop(_CREATION_DATE, None)
    (path / METADATA).write_text(json.dumps(said, indent=2, sort_keys=True) + "\n", "utf-8")


def content_items(path: Path) -> list[bytes]:
    """Return what the asset computes: its program as text, weights included, free of what says where it came from."""
    with Child(path) as child:
        _, found = child.ask("text")
    return [found["text"].tobytes()]

"""Every value inside a Core ML program, as the reference interpreter computes it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from deploykit.targets.base import Array
from deploykit.targets.coreml.interpreter import MilInterpreter
from deploykit.targets.traced import Arithmetic, NotTracedError, Trace, TracedValue

CLOSED = "Core ML returns a program's outputs alone, and no value between its operations"


def trace(path: Path, inputs: Mapping[str, Array], arithmetic: Arithmetic) -> Trace:
    """Return every value of the program in its order, by the reference interpreter.

    Raises NotTracedError for the runtime's own arithmetic.
    """
    if arithmetic is Arithmetic.RUNTIME:
        raise NotTracedError(CLOSED, where=str(path), next_step="compare its outputs on macOS")
    interpreter = MilInterpreter(path)
    images = {item.name for item in interpreter.inputs if item.color is not None}
    given: dict[str, Any] = {name: array[0] if name in images else array for name, array in inputs.items()}
    reads = _reads(path)
    outputs = {item.name for item in interpreter.outputs}
    values = []
    for position, item in enumerate(interpreter.trace(given)):
        value = np.array(item.value)
        output = item.name if item.name in outputs else None
        values.append(
            TracedValue(
                item.name, item.operation, position, reads[item.name], value, output=output, origins=(item.name,)
            )
        )
    return Trace(tuple(values), "reference interpreter")


def _reads(path: Path) -> dict[str, tuple[str, ...]]:
    """Return value → the names that the operation that makes it mentions, constants among them."""
    import coremltools

    specification = coremltools.models.MLModel(str(path), skip_model_load=True).get_spec()
    function = specification.mlProgram.functions[specification.description.defaultFunctionName or "main"]
    block = function.block_specializations[function.opset]
    found = {}
    for operation in block.operations:
        names = tuple(
            binding.name
            for argument in operation.inputs.values()
            for binding in argument.arguments
            if binding.WhichOneof("binding") == "name"
        )
        found.update({output.name: names for output in operation.outputs})
    return found

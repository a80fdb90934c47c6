"""Every value inside a Core AI asset, as Apple's own runtime computes it."""

from __future__ import annotations

import importlib.metadata
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from deploykit.targets.base import Array
from deploykit.targets.coreai.client import Child
from deploykit.targets.coreai.program import Program, computed, program_from_json
from deploykit.targets.traced import Arithmetic, NotTracedError, Trace, TracedValue

EXPOSED = "Apple's runtime returns every value that it is asked for: operations that it would fuse run one by one here"
SAME = f"{EXPOSED}; the outputs are those of a plain run, bit by bit"


def trace(path: Path, inputs: Mapping[str, Array], arithmetic: Arithmetic) -> Trace:
    """Return every value of the asset in the order of its operations.

    A copy of the program gets each value as one more output, and Apple's runtime runs the copy, beside a plain run
    whose outputs are compared bit by bit. Truth values are left out: they cannot be outputs. A value is named after
    the value of the lowered graph that it completes, where the asset notes one; that is its origin.

    Raises:
        ArtifactError: the asset cannot be read or run, or ``inputs`` do not fit it.
        NotTracedError: ``reference`` is asked for: nothing but Apple's runtime executes an asset.
    """
    if arithmetic is Arithmetic.REFERENCE:
        raise NotTracedError("Core AI has no reference executor: nothing but Apple's runtime runs an asset")
    with tempfile.TemporaryDirectory(prefix="deploykit-") as folder, Child(path) as child:
        child.ask("open")
        _, plain = child.ask("run", inputs)
        exposed = str(Path(folder) / "exposed.aimodel")
        child.ask("expose", to=exposed)
        program = program_from_json(child.ask("describe", path=exposed)[0])
        child.ask("open", path=exposed)
        _, found = child.ask("run", inputs)
    values = tuple(_values(program, found, {program.outputs[output]: output for output in reversed(plain)}))
    executor = f"Core AI, coreai-core {importlib.metadata.version('coreai-core')} (CPU)"
    return Trace(values, executor, _against_plain(found, plain))


def _values(program: Program, found: Mapping[str, Array], outputs: Mapping[str, str]) -> Iterator[TracedValue]:
    """Yield the values of ``program`` that depend on an input; ``outputs`` is value → output of the asset."""
    exposed = {value: output for output, value in program.outputs.items()}
    for one in computed(program):
        yield TracedValue(
            name=one.name,
            operation=one.operation.name,
            position=one.position,
            reads=one.reads,
            value=found[exposed[one.inside.name]],
            output=outputs.get(one.inside.name),
            origins=(one.origin,) if one.origin else (),
        )


def _against_plain(found: Mapping[str, Array], plain: Mapping[str, Array]) -> str:
    if all(np.array_equal(found[name], value, equal_nan=value.dtype.kind == "f") for name, value in plain.items()):
        return SAME
    pairs = [(found[name].astype(np.float64), value.astype(np.float64)) for name, value in plain.items()]
    largest = max(float(np.abs(one - alone).max()) for one, alone in pairs)
    return f"{EXPOSED}; outputs differ from a plain run by up to {largest:.2g}"

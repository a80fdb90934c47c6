"""Write the integers of a quantized file into a Core AI asset, and show the activations of its float file."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from deploykit.targets.base import Array
from deploykit.targets.coreai.client import Child
from deploykit.targets.coreai.inspection import stored_weights
from deploykit.targets.coreai.program import (
    INTEGER_OPERATIONS,
    METADATA,
    Computed,
    Program,
    computed,
    program_from_json,
)
from deploykit.targets.integers import int8_activations
from deploykit.targets.quantized import KEPT, Activation, LeftInFloat, QuantizedFile, Range
from deploykit.targets.schemes import require_integers
from deploykit.vocab import Precision, Target

# The float file that integers are put into: what is not quantized runs in half precision on these devices.
FLOAT_PRECISION = Precision.FP16
_PALETTES = {Precision.PALETTE6: 6, Precision.PALETTE4: 4}
_WEIGHT_DTYPES = ("float", "bfloat", "int8", "uint8", "uint4", "uint6")


def activations(path: Path, precision: Precision) -> tuple[Activation, ...]:
    """Return the floating-point activations of the asset, its inputs first, in the order of execution.

    What an operation computes needs no range of its own where no operation that works in integers reads it.
    """
    with Child(path) as child:
        program = program_from_json(child.ask("describe")[0])
    stored = {value.name for value in program.values().values()} - {one.inside.name for one in computed(program)}
    stored -= {value.name for value in program.inputs}
    found = [
        Activation(value.name, "", (), _fixed(value.shape), False, (value.name,), False, False)
        for value in program.inputs
        if value.dtype.startswith("float")
    ]
    for one in _floats(program):
        multiplies = one.operation.name in INTEGER_OPERATIONS
        found.append(
            Activation(
                name=one.name,
                operation=one.operation.name,
                reads=one.reads,
                shape=_fixed(one.inside.shape),
                channels_last=False,
                origins=(one.origin,) if one.origin else (),
                takes_weights=multiplies and not stored.isdisjoint(one.operation.operands[:2]),
                quantizes=precision.quantizes_activations and multiplies,
            )
        )
    return tuple(found)


def observe(path: Path, inputs: Iterable[Mapping[str, Array]], names: Collection[str]) -> Iterator[dict[str, Array]]:
    """Yield, for each set of inputs (as ``Runtime.run`` takes them), name → array of the activations ``names``.

    A copy of the asset gets the activations as further outputs, and Apple's runtime runs it, opened once.
    """
    with tempfile.TemporaryDirectory(prefix="deploykit-") as folder, Child(path) as child:
        program = program_from_json(child.ask("describe")[0])
        inside = {one.name: one.inside.name for one in _floats(program)}
        exposed = str(Path(folder) / "exposed.aimodel")
        child.ask("expose", to=exposed, only=[inside[name] for name in names if name in inside])
        child.ask("open", path=exposed)
        for given in inputs:
            _, found = child.ask("run", given)
            yield {name: found[inside[name]] if name in inside else np.asarray(given[name]) for name in names}


def quantize(
    path: Path,
    output: Path,
    precision: Precision,
    *,
    ranges: Mapping[str, Range],
    kept: Collection[str] = (),
    kept_weights: Collection[str] = (),
) -> QuantizedFile:
    """Write the asset ``path`` as ``output`` with the integers of ``precision``; ``path`` stays as it is.

    Weights are int8 with one scale for each output channel, or point into one palette. At ``int8`` every activation
    that a convolution or a matrix product reads passes through int8 once, whoever reads it; what the operation adds up
    stays floating point until the next one reads it. The numbers that stay floating point keep their dtype.

    Raises TargetError where Core AI has no such integers, or an activation has no finite range.
    """
    require_integers(Target.COREAI, precision, path)
    with Child(path) as child:
        program = program_from_json(child.ask("describe")[0])
        inside = {one.name: one.inside.name for one in _floats(program)}
        scales = None
        if precision.quantizes_activations:
            scales = _scales(path, program, ranges, {*kept, *kept_weights})
        done, _ = child.ask(
            "quantize",
            to=str(output.resolve()),
            bits=_PALETTES.get(precision),
            kept=[inside[name] for name in kept if name in inside],
            kept_weights=[inside[name] for name in kept_weights if name in inside],
            scales=scales,
            system=f"v{(program.system or '').removesuffix('.0')}",
        )
        after = program_from_json(child.ask("describe", path=str(output.resolve()))[0])
    if (path / METADATA).is_file():
        shutil.copyfile(path / METADATA, output / METADATA)
    left = dict(done["left"])
    if precision.quantizes_activations:
        left = {inside[name]: KEPT for name in kept if name in inside} | left
    return QuantizedFile(
        activations=len(done["activations"]),
        weights=int(done["weights"]),
        weight_bytes=_weight_bytes(after),
        float_weight_bytes=_weight_bytes(program),
        left_in_float=tuple(
            LeftInFloat(one.name, left[one.inside.name]) for one in _floats(program) if one.inside.name in left
        ),
    )


def _floats(program: Program) -> Iterator[Computed]:
    return (one for one in computed(program) if one.inside.dtype.startswith("float"))


def _fixed(shape: tuple[int | None, ...] | None) -> tuple[int, ...]:
    return tuple(-1 if size is None else size for size in shape or ())


def _scales(path: Path, program: Program, ranges: Mapping[str, Range], kept: set[str]) -> dict[str, tuple[float, int]]:
    """Return value → scale and zero point of what an operation in integers, none of ``kept``, may read."""
    dtypes = {value.name: (value.name, value.dtype) for value in program.inputs}
    dtypes |= {one.inside.name: (one.name, one.inside.dtype) for one in _floats(program)}
    needed = dict.fromkeys(
        operand
        for one in _floats(program)
        if one.operation.name in INTEGER_OPERATIONS and one.name not in kept
        for operand in one.operation.operands[:2]
        if operand in dtypes
    )
    stored = int8_activations(path, dict(dtypes[value] for value in needed), ranges)
    found = {value: stored[dtypes[value][0]] for value in needed}
    return {value: (one.scale, one.zero_point) for value, one in found.items()}


def _weight_bytes(program: Program) -> int:
    return sum(one.size_bytes for one in stored_weights(program) if one.dtype.startswith(_WEIGHT_DTYPES))

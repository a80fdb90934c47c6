"""The program of a Core AI asset as plain values, read by the process that may load it and used by any other."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploykit.errors import ArtifactError

BYTECODE = "main.mlirb"
HASH = "main.hash"
METADATA = "metadata.json"
ENTRY = "main"
# What Core AI multiplies by stored weights in, and in integers where both factors are.
INTEGER_OPERATIONS = frozenset({
    "conv2d", "conv3d", "conv_transpose2d", "conv_transpose3d", "batch_matmul", "broadcasting_batch_matmul",
})  # fmt: skip
_MAGIC = b"ML\xefR"
# A node that the lowered graph does not have: the converter takes one of its nodes as several.
_STEP = re.compile(r"step_\d+_")


@dataclass(frozen=True)
class Value:
    """One value of a program, by a unique ``name``: a size that is not fixed is None; no tensor has no ``shape``."""

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True)
class ProgramOperation:
    """One operation of a program, in the order in which it is written.

    A constant has its value nowhere here; ``splat`` says that the file stores one number for all of it. ``origin`` is
    the value of the lowered graph whose result this operation completes, where the file says so. ``nested``: it
    stands in a branch or a loop, so that how often it runs is not in the file.
    """

    name: str
    operands: tuple[str, ...]
    results: tuple[Value, ...]
    attributes: dict[str, str] = field(default_factory=dict)
    origin: str = ""
    splat: bool = False
    nested: bool = False


@dataclass(frozen=True)
class Program:
    """The function of an asset that is run: ``outputs`` are the names outside → the values that they return.

    ``functions`` are all that can be called; ``system`` is the oldest version of Apple's systems that runs the asset.
    """

    name: str
    inputs: tuple[Value, ...]
    outputs: dict[str, str]
    operations: tuple[ProgramOperation, ...]
    functions: tuple[str, ...]
    system: str | None

    def values(self) -> dict[str, Value]:
        """Return every value by name, inputs first."""
        made = (value for operation in self.operations for value in operation.results)
        return {value.name: value for value in (*self.inputs, *made)}


@dataclass(frozen=True)
class Computed:
    """One number or tensor that depends on an input: named after the value of the lowered graph that it completes.

    ``inside`` is its own value, ``reads`` names what it was made from: inputs and other such values.
    """

    name: str
    inside: Value
    operation: ProgramOperation
    position: int
    reads: tuple[str, ...]
    origin: str


def computed(program: Program) -> Iterator[Computed]:
    """Yield what ``program`` computes from its inputs, in order; truth values are left out, they cannot be outputs."""
    # What a reader of a value reads: the value, or what a value that cannot be seen was made from.
    stands: dict[str, tuple[str, ...]] = {value.name: (value.name,) for value in program.inputs}
    taken: set[str] = set()
    for position, operation in enumerate(program.operations):
        if operation.nested or stands.keys().isdisjoint(operation.operands):
            continue
        reads = tuple(dict.fromkeys(read for operand in operation.operands for read in stands.get(operand, ())))
        origin = "" if _STEP.fullmatch(operation.origin) else operation.origin
        for value in operation.results:
            if value.shape is None or value.dtype == "bool":
                stands[value.name] = reads
                continue
            name = value.name if not origin or origin in taken else origin
            taken.add(name)
            stands[value.name] = (name,)
            yield Computed(name, value, operation, position, reads, origin)


def program_from_json(body: dict[str, Any]) -> Program:
    """Return the program whose ``dataclasses.asdict`` went through JSON."""
    return Program(
        name=body["name"],
        inputs=tuple(map(_value, body["inputs"])),
        outputs=body["outputs"],
        operations=tuple(
            ProgramOperation(
                **{**one, "operands": tuple(one["operands"]), "results": tuple(map(_value, one["results"]))}
            )
            for one in body["operations"]
        ),
        functions=tuple(body["functions"]),
        system=body["system"],
    )


def _value(body: dict[str, Any]) -> Value:
    shape = body["shape"]
    return Value(body["name"], body["dtype"], None if shape is None else tuple(shape))


def require_whole(path: Path) -> None:
    """Raise ArtifactError where ``path`` is no asset, or its program is not the one that its own hash describes."""
    bytecode, stated = path / BYTECODE, path / HASH
    if not path.is_dir():
        raise refused(path, "a file" if path.exists() else "nothing", "a folder with a program")
    if not bytecode.is_file():
        raise refused(path, f"no {BYTECODE}", "a folder with a program")
    raw = bytecode.read_bytes()
    if not raw.startswith(_MAGIC):
        raise refused(
            path, f"{BYTECODE} of {len(raw)} bytes that is no program", "a program as Core AI's tools write it"
        )
    if stated.is_file() and stated.read_bytes() != hashlib.sha256(raw).digest():
        raise refused(path, f"{BYTECODE} differs from {HASH}", "the program whose hash is beside it")


def refused(path: Path, found: str, expected: str) -> ArtifactError:
    """Return the error that says that the asset at ``path`` cannot be read."""
    return ArtifactError(
        "The Core AI asset cannot be read.",
        where=str(path),
        found=found[:400],
        expected=expected,
        next_step="export or download it again",
    )

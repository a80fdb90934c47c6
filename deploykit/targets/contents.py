"""What an exported file holds, as it is read from disk: the same record for every format."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from deploykit.graph.conventions import Operation
from deploykit.vocab import Target


@dataclass(frozen=True)
class FileTensor:
    """One input or output as the file declares it; a size that is not fixed has its name, or ? where it has none."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str
    color_order: str | None = None
    meaning: str = ""


@dataclass(frozen=True)
class WeightBytes:
    """The constants of one dtype: how many tensors and values, and the bytes that they take in the file."""

    dtype: str
    tensors: int
    values: int
    size_bytes: int


@dataclass(frozen=True)
class FileContents:
    """What is in one file. Nothing was converted or run for it.

    ``versions`` are those of the format, ``operations`` and ``quantized`` count operations by name, ``computed``
    counts the values between operations by dtype. ``work`` holds what every operation does, for counting.
    ``metadata`` is what the file says about itself, beyond its inputs and outputs.
    """

    target: Target
    path: Path
    size_bytes: int
    versions: dict[str, str]
    minimum_os: str | None
    inputs: tuple[FileTensor, ...]
    outputs: tuple[FileTensor, ...]
    operations: dict[str, int]
    transposes: int
    quantized: dict[str, int]
    weights: tuple[WeightBytes, ...]
    computed: dict[str, int]
    work: tuple[Operation, ...] = field(repr=False)
    metadata: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def packed_bytes(dtype: str, values: int) -> int:
    """Return the bytes that ``values`` numbers of ``dtype`` take without gaps: int4 takes half a byte, a text none."""
    bits = re.search(r"\d+", dtype)
    return values if dtype == "bool" else -(-values * int(bits.group() if bits else 0) // 8)


def sum_by_dtype(constants: Iterable[tuple[str, int, int]]) -> tuple[WeightBytes, ...]:
    """Return one record for each dtype of ``constants`` (dtype, values, bytes), the most bytes first."""
    sums: dict[str, tuple[int, int, int]] = {}
    for dtype, values, size in constants:
        before = sums.get(dtype, (0, 0, 0))
        sums[dtype] = (before[0] + 1, before[1] + values, before[2] + size)
    return tuple(WeightBytes(dtype, *sums[dtype]) for dtype in sorted(sums, key=lambda dtype: -sums[dtype][2]))

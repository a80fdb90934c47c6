"""What every target gives: a way to write a file from a graph, and a runtime that executes the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from deploykit.errors import ArtifactError, TargetError
from deploykit.records import ExportPlan, TensorRecord

if TYPE_CHECKING:
    # The process that loads Core AI assets starts once a file, and needs neither PyTorch nor pydantic.
    from deploykit.graph.graph import Graph
    from deploykit.recipe import Recipe

Array: TypeAlias = NDArray[np.generic]


@dataclass(frozen=True)
class ExportRequest:
    """One file to write: the float32 graph lowered for its target, and what the file says about itself.

    ``float32_values`` names the nodes of the graph that a file in half precision computes in float32 all the same.
    """

    graph: Graph
    plan: ExportPlan
    recipe: Recipe
    metadata: Mapping[str, str]
    float32_values: frozenset[str] = frozenset()


class Runtime(Protocol):
    """An open file, ready to run: inputs are checked against what the file declares."""

    @property
    def name(self) -> str:
        """The runtime with its version."""
        ...

    @property
    def inputs(self) -> tuple[TensorRecord, ...]:
        """What the file takes."""
        ...

    @property
    def outputs(self) -> tuple[TensorRecord, ...]:
        """What the file returns."""
        ...

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return name → array of every output. Raises ArtifactError for inputs that do not fit."""
        ...

    def __enter__(self) -> Self:
        """Return the open runtime."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the file."""
        ...


def refused_by_converter(converter: str, recipe: str, error: Exception) -> TargetError:
    """Return the error that says that ``converter`` does not take the network, with the first lines of its reason."""
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return TargetError(
        f"{converter} does not take this network.",
        where=recipe,
        found=f"{type(error).__name__}: {' '.join(lines[:3])[:500] or 'no reason given'}",
        expected="operations that the converter knows",
        next_step="see the whole reason and what the converter printed with --verbose, or leave the target out",
    )


def fits(record: TensorRecord, shape: tuple[int, ...]) -> bool:
    """Return whether ``shape`` agrees with every axis of ``record`` that has a fixed size."""
    return len(shape) == len(record.shape) and all(
        declared in (-1, size) for declared, size in zip(record.shape, shape, strict=True)
    )


def require_fixed_shapes(path: Path, records: tuple[TensorRecord, ...]) -> None:
    """Raise ArtifactError where an axis of ``records`` is of any size, so that its values cannot be made up."""
    for record in records:
        if -1 in record.shape:
            raise ArtifactError(
                "The file has an input of no fixed shape.",
                where=str(path),
                found=f"{record.name}: {list(record.shape)}, -1 for an axis of any size",
                expected="tensors of fixed shape",
                next_step="export with a fixed shape",
            )


def check_inputs(path: Path, declared: tuple[TensorRecord, ...], given: Mapping[str, Array]) -> None:
    """Raise ArtifactError unless ``given`` has exactly the declared names, shapes (-1: any size) and dtypes."""
    names = {record.name for record in declared}
    if set(given) != names:
        raise ArtifactError(
            "The inputs do not have the names that the file declares.",
            where=str(path),
            found=", ".join(sorted(given)) or "no inputs",
            expected=", ".join(sorted(names)),
        )
    for record in declared:
        array = given[record.name]
        if not fits(record, array.shape) or array.dtype != np.dtype(record.dtype):
            raise ArtifactError(
                f"The input {record.name} does not fit the file.",
                where=str(path),
                found=f"{array.dtype} {tuple(array.shape)}",
                expected=f"{record.dtype} {record.shape} ({record.layout})",
            )

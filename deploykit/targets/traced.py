"""What happens inside a file: every value that it computes, by the arithmetic that was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from deploykit.errors import DeploykitError
from deploykit.targets.base import Array


class Arithmetic(StrEnum):
    """Who computes the values of a file.

    ``runtime``: the runtime that executes the file, its kernels included. ``reference``: a reference executor of the
    same file, operation by operation, which rounds to the dtypes that the file states and nowhere else.
    """

    RUNTIME = "runtime"
    REFERENCE = "reference"


@dataclass(frozen=True)
class TracedValue:
    """One value that an operation of a file computes; constants and the file's inputs are none.

    ``name`` is unique in the file and the same in both arithmetics. ``position`` counts the operations in the order of
    execution. ``reads`` names what the operation reads: values, and inputs of the file; constants may be left out.
    ``value`` keeps the axes and the dtype of the file (dequantised where it is quantised); ``channels_last`` says
    whether a value of four axes is (N, H, W, C). ``output`` is the name of the output that this value is, as
    ``Runtime.outputs`` has it. ``origins`` names what the file itself says that the value stands for, in the words of
    the converter (fx node names, for one), and is empty where it says nothing.
    """

    name: str
    operation: str
    position: int
    reads: tuple[str, ...]
    value: NDArray[np.generic] = field(repr=False)
    channels_last: bool = False
    output: str | None = None
    origins: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trace:
    """The values of one run in the order of execution, who computed them, and what is not as in a plain run."""

    values: tuple[TracedValue, ...]
    executor: str
    note: str = ""


class NotTracedError(DeploykitError):
    """No executor shows the values of this file in this arithmetic here; ``message`` says why in one sentence."""


class Tracer(Protocol):
    """What ``targets/<t>/traced.py`` offers: ``part(target, "traced").trace(...)``."""

    def trace(self, path: Path, inputs: Mapping[str, Array], arithmetic: Arithmetic) -> Trace:
        """Return every value that the file computes from ``inputs`` (as ``Runtime.run`` takes them).

        Raises NotTracedError where ``arithmetic`` has no executor here.
        """
        ...

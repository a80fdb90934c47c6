"""What every target gives for quantization: the activations of a float file, and that file with integers in it.

``targets/<t>/quantize.py`` offers the functions of ``Quantizer``. What is decided (ranges, what stays in float) is
decided above, alike for all targets; a quantizer only writes it down in the words of its format.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from deploykit.errors import ArtifactError
from deploykit.targets.base import Array
from deploykit.vocab import Precision

# Why an operation, or its weights, stays in floating point: in every format alike.
KEPT = "kept in float by request"
KEPT_WEIGHTS = "kept in float by request, its weights too"
NO_GAIN = "its integers and scales would take no fewer bytes than its weights"
SHARED = "its weights are also read where they must stay in float"


@dataclass(frozen=True)
class Range:
    """The real numbers that the integers of one activation span; zero is one of them."""

    lowest: float
    highest: float

    def __post_init__(self) -> None:
        if not self.lowest <= 0 <= self.highest:
            raise ValueError(f"a range holds zero, not {self.lowest} to {self.highest}")


@dataclass(frozen=True)
class Activation:
    """One floating-point value of a float file: an input of it, or what one operation computes.

    ``name`` and ``reads`` are as ``TracedValue`` has them; ``operation`` is empty for an input of the file.
    ``takes_weights`` says whether the operation multiplies by stored weights (convolution, linear layer);
    ``quantizes`` whether the target computes the operation in integers, so that its inputs and itself need ranges.
    """

    name: str
    operation: str
    reads: tuple[str, ...]
    shape: tuple[int, ...]
    channels_last: bool
    origins: tuple[str, ...]
    takes_weights: bool
    quantizes: bool


@dataclass(frozen=True)
class LeftInFloat:
    """One operation, by the name of the value it computes, that stays in floating point, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class QuantizedFile:
    """What a quantizer wrote: counts of integer tensors, and the bytes of the weights with their scales.

    ``weight_bytes`` are all stored numbers that the operations read, scales and zero points included;
    ``float_weight_bytes`` the same of the float file. ``shared`` lists activations that had to take one range together.
    """

    activations: int
    weights: int
    weight_bytes: int
    float_weight_bytes: int
    left_in_float: tuple[LeftInFloat, ...] = ()
    shared: tuple[tuple[str, ...], ...] = ()


class Quantizer(Protocol):
    """What ``targets/<t>/quantize.py`` offers: ``part(target, "quantize")``."""

    def activations(self, path: Path, precision: Precision) -> tuple[Activation, ...]:
        """Return the floating-point activations of the float file, its inputs first, in the order of execution."""
        ...

    def observe(
        self, path: Path, inputs: Iterable[Mapping[str, Array]], names: Collection[str]
    ) -> Iterator[dict[str, Array]]:
        """Yield, for each set of inputs (as ``Runtime.run`` takes them), name → array of the activations ``names``.

        The file is opened once. Inputs of the file are among what may be asked for.
        """
        ...

    def quantize(
        self,
        path: Path,
        output: Path,
        precision: Precision,
        *,
        ranges: Mapping[str, Range],
        kept: Collection[str] = (),
        kept_weights: Collection[str] = (),
        integer_io: bool = False,
    ) -> QuantizedFile:
        """Write the float file ``path`` as ``output`` with the integers of ``precision``; ``path`` stays as it is.

        ``ranges`` are those of the activations, by name; empty where the precision quantizes weights alone. The
        operations that compute the values ``kept`` work in floating point on weights that are still stored as
        integers; of ``kept_weights`` the weights stay floating point too. The same call gives the same bytes.
        With ``integer_io`` the file takes and returns the integers themselves; schemes without that lack the argument.

        Raises TargetError where the target's quantizer does not take the file.
        """
        ...


def unreadable(path: Path, error: Exception) -> ArtifactError:
    """Return the error of a float file that its target's library cannot read; it is chained to ``error``."""
    return ArtifactError(
        "The file cannot be read.",
        where=str(path),
        found=f"{type(error).__name__}: {str(error).strip()[:300]}",
        expected="the float file that was exported",
    )

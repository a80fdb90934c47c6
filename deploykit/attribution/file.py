"""The values of a traced file, as values of the lowered graph could be: found by shape, read in its axes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deploykit.targets.traced import Trace, TracedValue

_IMAGE_RANK = 4
_FIRST, _LAST = (0, 3, 1, 2), (0, 2, 3, 1)
_PROBES = 512
_LITTLE = 0.03


@dataclass(frozen=True)
class Fit:
    """A value of the file, its axes put into the order ``axes`` and then the shape of a value of the graph."""

    value: str
    axes: tuple[int, ...]


class File:
    """The values of one run of a file. ``inputs`` maps its input names to those of the lowered graph."""

    def __init__(self, trace: Trace, inputs: Mapping[str, str]) -> None:
        self.trace = trace
        self.inputs = dict(inputs)
        self.values: dict[str, TracedValue] = {item.name: item for item in trace.values}
        self.floats = tuple(item.name for item in trace.values if item.value.dtype.kind == "f")
        self.outputs = {item.output: item.name for item in trace.values if item.output is not None}
        halves = sum(self.is_half(name) for name in self.floats)
        self.mostly_half = 2 * halves > len(self.floats)
        self._by_sizes: dict[tuple[int, ...], list[Fit]] = defaultdict(list)
        for name in self.floats:
            shape = self.values[name].value.shape
            orders = [tuple(range(len(shape)))] + ([_FIRST, _LAST] if len(shape) == _IMAGE_RANK else [])
            kept: set[tuple[int, ...]] = set()
            for order in orders:
                # Axes of length 1 hold nothing apart: orders that differ in them alone are one.
                if (moved := tuple(axis for axis in order if shape[axis] != 1)) not in kept:
                    kept.add(moved)
                    self._by_sizes[tuple(shape[axis] for axis in moved)].append(Fit(name, order))

    def is_half(self, name: str) -> bool:
        """Whether the file holds this value in half precision."""
        return self.values[name].value.dtype == np.float16

    def candidates(self, shape: tuple[int, ...]) -> tuple[Fit, ...]:
        """Return every value that has this ``shape`` up to the order of its axes and axes of length 1."""
        return tuple(self._by_sizes.get(tuple(size for size in shape if size != 1), ()))

    def tensor(self, fit: Fit, shape: tuple[int, ...]) -> Tensor:
        """Return the value of ``fit`` in the axes of a value of the graph of this ``shape``, in float64."""
        return torch.from_numpy(self._view(fit, shape).astype(np.float64, order="C"))

    def distance(self, fit: Fit, expected: Tensor, typical: float) -> float:
        """Return the relative L2 distance from ``expected`` at some places: cheap, and near that of the whole.

        ``typical`` is the root mean square of ``expected``: places that hold much less than that weigh nothing.
        """
        shape = tuple(expected.shape)
        generator = np.random.default_rng(len(shape))
        places = tuple(generator.integers(0, size, _PROBES) for size in shape)
        wanted = expected[places].numpy() if shape else expected.numpy()
        found = self._view(fit, shape)[places].astype(np.float64)
        # Infinities and NaN at the same places say as much as equal numbers do.
        kept = np.isfinite(found) | np.isfinite(wanted)
        with np.errstate(all="ignore"):
            error, size = float(np.linalg.norm((found - wanted)[kept])), float(np.linalg.norm(wanted[kept]))
        if np.isfinite(typical):
            size = max(size, _LITTLE * typical * wanted.size**0.5)
        return error / size if size > 0 else error

    def _view(self, fit: Fit, shape: tuple[int, ...]) -> NDArray[np.generic]:
        return self.values[fit.value].value.transpose(fit.axes).reshape(shape)

    def before(self, name: str, stop: Iterable[str]) -> frozenset[str]:
        """Return the nearest values before ``name`` that are in ``stop`` or are inputs of the file, by name."""
        ends = set(stop) | set(self.inputs)
        found: set[str] = set()
        seen: set[str] = set()
        pending = list(self.values[name].reads)
        while pending:
            read = pending.pop()
            if read in seen:
                continue
            seen.add(read)
            if read in ends:
                found.add(read)
            elif read in self.values:
                pending.extend(self.values[read].reads)
        return frozenset(found)

    def depends(self, name: str, on: str) -> bool:
        """Whether the value ``name`` is computed from the value ``on``."""
        pending, seen = [name], set()
        while pending:
            current = pending.pop()
            if current == on:
                return True
            if current not in seen and current in self.values:
                seen.add(current)
                pending.extend(self.values[current].reads)
        return False

"""The cumulative error of every matched value, split into precision, converter and kernel error."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from deploykit.attribution.file import File, Fit
from deploykit.attribution.judge import relative_l2
from deploykit.attribution.lowered import Lowered, Values


@dataclass(frozen=True)
class Parts:
    """Relative L2 of the exact value: the whole error, and the three parts whose values add up to it.

    A part is None where an executor for it is missing.
    """

    cumulative: float
    precision: float
    converter: float | None
    kernel: float | None


def split(
    lowered: Lowered, given: Values, fits: Mapping[str, Fit], runtime: File | None, reference: File | None
) -> dict[str, Parts]:
    """Return node → parts for every node in ``fits``, from the graph run from its inputs exactly and rounded.

    Of the values of the file, those that ``runtime`` computed count as the file's where there are any.
    """
    file = runtime or reference
    assert file is not None
    uses: dict[str, int] = defaultdict(int)
    for node in lowered.nodes:
        for read in node.reads:
            uses[read] += 1
    exact: dict[str, Any] = dict(given)
    rounded: dict[str, Any] = dict(given)
    found = {}
    for node in lowered.nodes:
        fit = fits.get(node.name)
        floating = node.varies and node.shape is not None
        half = floating and (file.is_half(fit.value) if fit is not None else file.mostly_half)
        exact[node.name] = lowered.exactly(node.name, exact)
        rounded[node.name] = lowered.rounded(node.name, rounded, half=half)
        if fit is not None:
            found[node.name] = _parts(exact[node.name], rounded[node.name], fit, runtime, reference)
        for read in node.reads:
            uses[read] -= 1
            if not uses[read]:
                exact.pop(read, None)
                rounded.pop(read, None)
    return found


def _parts(exact: Tensor, rounded: Tensor, fit: Fit, runtime: File | None, reference: File | None) -> Parts:
    shape = tuple(exact.shape)
    run = runtime.tensor(fit, shape) if runtime is not None else None
    specified = reference.tensor(fit, shape) if reference is not None else None
    value = run if run is not None else specified
    assert value is not None
    return Parts(
        cumulative=relative_l2(value, exact),
        precision=relative_l2(rounded, exact),
        converter=None if specified is None else relative_l2(specified, rounded, exact),
        kernel=None if run is None or specified is None else relative_l2(run, specified, exact),
    )

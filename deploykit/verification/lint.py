"""Values that tell of a broken output whatever the tolerances are: not finite, constant, stuck at an end."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deploykit.verification.records import Lint
from deploykit.vocab import Precision

# More of the values at one end of their range than this, and than the reference has there, is worth saying.
STUCK_SHARE = 0.01
_ROUNDED = {Precision.FP32: np.float32, Precision.FP16: np.float16}


def lint_output(
    found: Sequence[NDArray[np.floating]], reference: Sequence[NDArray[np.floating]], precision: Precision
) -> tuple[Lint, ...]:
    """Return what is odd about the ``found`` values of one output, one array per sample, beside the reference's.

    What the reference has too, rounded to ``precision``, is the network's own way and not reported.
    """
    values = np.concatenate([np.ravel(array) for array in found]).astype(np.float64)
    with np.errstate(over="ignore"):
        expected = np.concatenate([np.ravel(array).astype(_ROUNDED[precision]) for array in reference])
    expected = expected.astype(np.float64)
    lints = []
    for rule, of in (("nan", np.isnan), ("infinity", np.isinf)):
        share = float(of(values).mean())
        if share > 0:
            name = "NaN" if rule == "nan" else "infinite"
            lints.append(Lint(rule, share, f"{share:.2%} of the values are {name}", fails=True))
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return tuple(lints)
    if finite.size == values.size:
        constant = _constant(found, reference)
        if constant is not None:
            return (*lints, constant)
    return (*lints, *_stuck(values, finite, expected))


def _constant(found: Sequence[NDArray[np.floating]], reference: Sequence[NDArray[np.floating]]) -> Lint | None:
    """Return that every sample gives one value, or that all samples give the same values."""
    flat = [float(np.ptp(array)) == 0 for array in found if array.size > 1]
    expected_flat = [float(np.ptp(array)) == 0 for array in reference if array.size > 1]
    if flat and all(flat) and not all(expected_flat):
        return Lint("constant", 1.0, f"every value of a sample is the same, {float(found[0].flat[0]):.6g}", fails=True)
    same = len(found) > 1 and all(np.array_equal(array, found[0]) for array in found[1:])
    expected_same = all(np.array_equal(array, reference[0]) for array in reference[1:])
    if same and not expected_same:
        return Lint("constant", 1.0, "the values do not depend on the input: every sample gives the same", fails=True)
    return None


def _stuck(values: NDArray[np.float64], finite: NDArray[np.float64], expected: NDArray[np.float64]) -> tuple[Lint, ...]:
    lints = []
    for end, level in (("smallest", float(finite.min())), ("largest", float(finite.max()))):
        share = float((values == level).mean())
        # The reference's own end, and the same level in it: a ReLU's zeros or a sigmoid's ones are no fault.
        own_end = float(expected.min() if end == "smallest" else expected.max())
        usual = max(float((expected == level).mean()), float((expected == own_end).mean()))
        if share > usual + STUCK_SHARE:
            detail = f"{share:.2%} of the values are exactly the {end}, {level:.6g}; {usual:.2%} in the reference"
            lints.append(Lint("saturated", share, detail, fails=False))
    return tuple(lints)

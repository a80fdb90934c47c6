"""Values that tell of a broken output whatever the tolerances are: not finite, constant, vanished, stuck at an end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deploykit.vocab import Precision

# More of the values at one end of their range than this, and than the reference has there, is worth saying.
STUCK_SHARE = 0.01
# A fifth of all values at one end: no range that an estimator chooses cuts so many off, a wrong scale does.
BROKEN_SHARE = 0.2
# A standard deviation of a tenth of the reference's: 8 bits keep one to a part in a hundred, half precision better.
VANISHED_SPREAD = 0.1
# A class that the reference gives to so many pixels, and the file to none; fewer are a matter of rounding.
LEAST_SHARE = 0.01
LEVELS = 256


@dataclass(frozen=True)
class Lint:
    """Something odd about an output's values: ``share`` of them, from 0 to 1. ``fails`` where no output may be so."""

    rule: str
    share: float
    detail: str
    fails: bool


@dataclass(frozen=True)
class Classes:
    """The best class of every pixel, one array per sample: ``found`` in the file, ``expected`` in its reference."""

    found: Sequence[NDArray[np.integer]]
    expected: Sequence[NDArray[np.integer]]


def lint_output(
    found: Sequence[NDArray[np.floating]],
    reference: Sequence[NDArray[np.floating]],
    precision: Precision,
    classes: Classes | None = None,
) -> tuple[Lint, ...]:
    """Return what is odd about the ``found`` values of one output, one array per sample, beside the reference's.

    What the reference has too, rounded to ``precision``, is the network's own way and not reported. ``classes`` are
    those of an output that scores some.
    """
    values = np.concatenate([np.ravel(array) for array in found]).astype(np.float64)
    exact = np.concatenate([np.ravel(array) for array in reference]).astype(np.float64)
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
    lost = (*_vanished(finite, exact), *(_never_best(classes) if classes else ()))
    return (*lints, *lost, *_stuck(values, finite, _rounded(exact, precision)))


def _rounded(values: NDArray[np.float64], precision: Precision) -> NDArray[np.float64]:
    """Return ``values`` as a sound file of ``precision`` gives them."""
    if precision is Precision.INT8:
        low, high = float(values.min()), float(values.max())
        step = (high - low) / (LEVELS - 1)
        return low + np.rint((values - low) / step) * step if np.isfinite(step) and step > 0 else values
    with np.errstate(over="ignore"):
        half = values.astype(np.float16 if precision is Precision.FP16 else np.float32)
    return half.astype(np.float64)


def _vanished(finite: NDArray[np.float64], exact: NDArray[np.float64]) -> tuple[Lint, ...]:
    spread, usual = float(finite.std()), float(exact.std())
    if not spread < VANISHED_SPREAD * usual:
        return ()
    detail = f"the values spread by {spread:.3g} (standard deviation); {usual:.3g} in the reference"
    return (Lint("vanished", 1.0, detail, fails=True),)


def _never_best(classes: Classes) -> tuple[Lint, ...]:
    """Return the classes that are best nowhere, although the reference has them in ``LEAST_SHARE`` of the pixels."""
    found, expected = (np.concatenate([np.ravel(one) for one in side]) for side in (classes.found, classes.expected))
    lints = []
    for one in np.unique(expected[expected >= 0]):
        share = float((expected == one).mean())
        if share >= LEAST_SHARE and not (found == one).any():
            detail = f"class {int(one)} is the best nowhere; in {share:.2%} of the pixels of the reference"
            lints.append(Lint("vanished", share, detail, fails=True))
    return tuple(lints)


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
            lints.append(Lint("saturated", share, detail, fails=share > usual + BROKEN_SHARE))
    return tuple(lints)

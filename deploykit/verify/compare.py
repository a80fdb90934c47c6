"""Comparison of an output with its float64 reference: errors in numbers, and whether a mask changed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deploykit.records import Comparison, Tolerance

NO_CLASS = -1


@dataclass(frozen=True)
class Masks:
    """The class of every pixel, one array (1, H, W) per sample: ``found`` and ``expected``, ``NO_CLASS`` for none.

    ``sure`` marks the pixels where no error within the tolerance changes the reference's class.
    """

    found: Sequence[NDArray[np.integer]]
    expected: Sequence[NDArray[np.integer]]
    sure: Sequence[NDArray[np.bool_]]


def best_class(scores: NDArray[np.floating]) -> NDArray[np.integer]:
    """Return the class (1, H, W) with the largest of ``scores`` (1, C, H, W); ``NO_CLASS`` where one is NaN."""
    return np.where(np.isnan(scores).any(axis=1), NO_CLASS, scores.argmax(axis=1))


def sure_pixels(reference: Sequence[NDArray[np.floating]], tolerance: Tolerance) -> list[NDArray[np.bool_]]:
    """Return where the margin between the two best scores of ``reference`` exceeds what ``tolerance`` allows twice.

    Without a bound ``max_abs_error``, ``relative_l2`` of the largest score is allowed.
    """
    peak = max(float(np.abs(scores).max()) for scores in reference)
    needed = 2 * (tolerance.max_abs_error or (tolerance.relative_l2 or 0.0) * peak)
    found = []
    for scores in reference:
        best = np.partition(scores.astype(np.float64), -2, axis=1)
        with np.errstate(invalid="ignore"):  # two infinite scores have no margin
            found.append(np.asarray(best[:, -1] - best[:, -2] > needed))
    return found


def compare(
    output: str,
    measured: Sequence[NDArray[np.floating]],
    reference: Sequence[NDArray[np.floating]],
    tolerance: Tolerance,
    *,
    classes: int = 0,
    pictures: Sequence[bool] | None = None,
    masks: Masks | None = None,
) -> Comparison:
    """Return how ``measured`` differs from ``reference``, one array (1, C, H, W) per sample in each.

    With ``classes`` of 2 or more, axis 1 holds class scores and masks are compared: ``wrong_pixels`` counts the
    pixels whose class differs although the reference's margin between its two best classes exceeds twice the
    tolerance's ``max_abs_error`` (the measured maximum is no excuse; without that bound every changed pixel with
    a margin above twice ``relative_l2`` of the reference's largest score counts). ``masks`` are compared instead of
    those of the scores. Where a shape differs, nothing is compared and the shapes are the failure.
    ``mask_agreement`` is taken over the samples marked in ``pictures``, all where none is: on noise a network has no
    margin anywhere, so that the share of pixels that keep their class says nothing about its masks.
    """
    if not reference or len(measured) != len(reference):
        raise ValueError(f"{len(measured)} measured samples against {len(reference)} references")
    other = next(((a, b) for a, b in zip(measured, reference, strict=True) if a.shape != b.shape), None)
    if other is not None:
        return _not_comparable(output, len(reference), tolerance, other[0].shape, other[1].shape)
    errors, squares, energy = [], 0.0, 0.0
    worst = -1.0
    worst_index: tuple[int, ...] = (0,)
    for sample, (a, b) in enumerate(zip(measured, reference, strict=True)):
        with np.errstate(all="ignore"):  # NaN and infinity are results here, and counted below
            difference = np.abs(a.astype(np.float64) - b.astype(np.float64))
        # Infinity minus infinity as well: no output that is not finite passes.
        difference[~np.isfinite(difference)] = math.inf
        place = np.unravel_index(int(difference.argmax()), difference.shape)
        if difference[place] > worst:
            worst, worst_index = float(difference[place]), (sample, *(int(i) for i in place[1:]))
        errors.append(difference.ravel())
        with np.errstate(all="ignore"):
            squares += float(np.square(difference).sum())
            energy += float(np.square(b.astype(np.float64)).sum())
    relative = math.sqrt(squares / energy) if energy > 0 else (0.0 if squares == 0 else math.inf)
    snr = -20 * math.log10(relative) if 0 < relative < math.inf else (math.inf if squares == 0 else -math.inf)
    marked = list(pictures) if pictures and any(pictures) else [True] * len(reference)
    if masks is None and classes > 1:
        expected = [best_class(scores) for scores in reference]
        masks = Masks([best_class(scores) for scores in measured], expected, sure_pixels(reference, tolerance))
    agreement, wrong = (None, None) if masks is None else _changed(masks, marked)
    broken = _exceeded(worst, relative, agreement, wrong, tolerance)
    return Comparison(
        output=output,
        samples=len(reference),
        max_abs_error=worst,
        median_abs_error=float(np.median(np.concatenate(errors))),
        relative_l2=relative,
        snr_db=snr,
        mask_agreement=agreement,
        wrong_pixels=wrong,
        worst_index=worst_index,
        tolerance=tolerance,
        failures=broken,
    )


def _not_comparable(
    output: str, samples: int, tolerance: Tolerance, found: tuple[int, ...], expected: tuple[int, ...]
) -> Comparison:
    return Comparison(
        output=output,
        samples=samples,
        max_abs_error=math.inf,
        median_abs_error=math.inf,
        relative_l2=math.inf,
        snr_db=-math.inf,
        mask_agreement=None,
        wrong_pixels=None,
        worst_index=(0,),
        tolerance=tolerance,
        failures=(f"shape {list(found)} instead of {list(expected)}",),
    )


def _changed(masks: Masks, marked: Sequence[bool]) -> tuple[float, int]:
    """Return the share of pixels of one class in both, on the samples ``marked``, and how many are wrong on all."""
    same = total = wrong = 0
    for found, expected, sure, counts in zip(masks.found, masks.expected, masks.sure, marked, strict=True):
        # A pixel without a class counts as changed, even where neither has one.
        changed = (found != expected) | (found == NO_CLASS)
        same += int((~changed).sum()) * counts
        total += changed.size * counts
        wrong += int((changed & sure).sum())
    return same / total, wrong


def _exceeded(
    worst: float, relative: float, agreement: float | None, wrong: int | None, tolerance: Tolerance
) -> tuple[str, ...]:
    found = []
    if tolerance.max_abs_error is not None and not worst <= tolerance.max_abs_error:
        found.append(f"max absolute error {worst:.3g} exceeds {tolerance.max_abs_error:.3g}")
    if tolerance.relative_l2 is not None and not relative <= tolerance.relative_l2:
        found.append(f"relative L2 {relative:.3g} exceeds {tolerance.relative_l2:.3g}")
    if tolerance.mask_agreement is not None and agreement is not None and not agreement >= tolerance.mask_agreement:
        found.append(f"mask agreement {agreement:.5f} is below {tolerance.mask_agreement:.5f}")
    if tolerance.wrong_pixels is not None and wrong is not None and wrong > tolerance.wrong_pixels:
        found.append(f"{wrong} mask pixels wrong beyond the tolerance, {tolerance.wrong_pixels} allowed")
    if not math.isfinite(worst):
        found.append("the output holds NaN or infinity")
    return tuple(found)

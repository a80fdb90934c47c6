"""Comparison of an output with its float64 reference: errors in numbers, and whether a mask changed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deploykit.records import Comparison, Tolerance


def compare(
    output: str,
    measured: Sequence[NDArray[np.floating]],
    reference: Sequence[NDArray[np.floating]],
    tolerance: Tolerance,
    *,
    classes: int = 0,
    pictures: Sequence[bool] | None = None,
) -> Comparison:
    """Return how ``measured`` differs from ``reference``, one array (1, C, H, W) per sample in each.

    With ``classes`` of 2 or more, axis 1 holds class scores and masks are compared: ``wrong_pixels`` counts the
    pixels whose class differs although the reference's margin between its two best classes exceeds twice the
    tolerance's ``max_abs_error`` (the measured maximum is no excuse; without that bound every changed pixel with
    a margin above twice ``relative_l2`` of the reference's largest score counts). Where a shape differs, nothing is
    compared and the shapes are the failure. ``mask_agreement`` is taken over
    the samples marked in ``pictures``, all where none is: on noise a network has no margin anywhere, so that the
    share of pixels that keep their class says nothing about its masks.
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
    agreement, wrong = _masks(measured, reference, tolerance, marked) if classes > 1 else (None, None)
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


def _masks(
    measured: Sequence[NDArray[np.floating]],
    reference: Sequence[NDArray[np.floating]],
    tolerance: Tolerance,
    marked: Sequence[bool],
) -> tuple[float, int]:
    peak = max(float(np.abs(b).max()) for b in reference)
    margin_needed = 2 * (tolerance.max_abs_error or (tolerance.relative_l2 or 0.0) * peak)
    same = total = wrong = 0
    for a, b, counts in zip(measured, reference, marked, strict=True):
        best = np.partition(b.astype(np.float64), -2, axis=1)
        with np.errstate(invalid="ignore"):  # two infinite scores have no margin
            margin = best[:, -1] - best[:, -2]
        # NaN never equals a class, so that a pixel without a score counts as changed.
        changed = (a.argmax(axis=1) != b.argmax(axis=1)) | np.isnan(a).any(axis=1)
        same += int((~changed).sum()) * counts
        total += changed.size * counts
        wrong += int((changed & (margin > margin_needed)).sum())
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

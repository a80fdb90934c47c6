"""What a file of each output kind holds, beside the scores of its network: the values, the classes, the comparison.

One score alone is that of the second of two classes whose first scores 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from deploykit.errors import UsageError
from deploykit.recipe import Output
from deploykit.records import Comparison, Tolerance
from deploykit.verify.compare import NO_CLASS, Masks, best_class, compare, sure_pixels
from deploykit.vocab import OutputKind

Values = NDArray[np.floating]

# How far a runtime may take a probability beyond 0 and 1, and half precision the sum over classes from 1.
_RANGE_TOLERANCE = 1e-3
_SUM_TOLERANCE = 2e-2
# A class number in a mask is one of these steps from the next; runtimes give it exactly.
_EVEN = 0.5


def softmax(scores: Values) -> NDArray[np.float64]:
    """Return the probabilities (1, C, H, W) that follow from ``scores``, in float64; NaN where one is not finite."""
    with np.errstate(all="ignore"):  # a score that is not finite gives NaN, which no comparison passes
        powers = np.exp(scores.astype(np.float64) - scores.astype(np.float64).max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def contracted(scores: Values, kind: OutputKind) -> Values:
    """Return what a file of ``kind`` gives, in float64, for the network's ``scores`` (1, C, H, W)."""
    if kind is OutputKind.LOGITS:
        return scores
    both = two_at_least(scores)
    if kind is OutputKind.MASK:
        return np.asarray(both.argmax(axis=1, keepdims=True), np.float64)
    return softmax(both) if both.shape[1] > 2 else softmax(both)[:, 1:]


def classes_in(given: NDArray[np.generic], kind: OutputKind) -> NDArray[np.integer]:
    """Return the class (1, H, W) of each pixel of what a file gives (1, C, H, W); -1 where it has none."""
    values: Values = np.asarray(given, np.float64)
    if kind is OutputKind.MASK:
        classes = values[:, 0]
        whole = np.isfinite(classes) & (classes == np.rint(classes)) & (classes >= 0)
        return np.where(whole, np.where(whole, classes, 0).astype(np.int64), NO_CLASS)
    if kind is OutputKind.PROBABILITY and values.shape[1] == 1:
        return np.where(np.isnan(values[:, 0]), NO_CLASS, (values[:, 0] > _EVEN).astype(np.int64))
    return best_class(values)


def probability_in(values: Values, kind: OutputKind, index: int) -> NDArray[np.float64]:
    """Return the probability (1, 1, H, W) of the class ``index`` in ``values`` of a file. Not for a mask."""
    if kind is OutputKind.MASK:
        raise ValueError("a mask holds no probability")
    found = softmax(values) if kind is OutputKind.LOGITS else _all_classes(values)
    return found[:, index : index + 1]


def tolerance_of(kind: OutputKind, tolerance: Tolerance) -> Tolerance:
    """Return the bounds for a file of ``kind`` that follow from the ``tolerance`` of the scores.

    If no score is off by more than e, no probability is by more than e / 2: the derivatives of a softmax to its
    scores have absolute values that sum to 2p(1 - p) at most. Of a mask the classes alone are bounded; where the
    recipe bounds none, no pixel may be wrong.
    """
    if kind is OutputKind.LOGITS:
        return tolerance
    if kind is OutputKind.PROBABILITY:
        halved = tolerance.max_abs_error and tolerance.max_abs_error / 2
        reason = f"{tolerance.reason}; for probabilities half of what is allowed for scores"
        return replace(tolerance, max_abs_error=halved, reason=reason)
    unbounded = tolerance.wrong_pixels is None and tolerance.mask_agreement is None
    return replace(
        tolerance,
        max_abs_error=None,
        relative_l2=None,
        wrong_pixels=0 if unbounded else tolerance.wrong_pixels,
        reason=f"{tolerance.reason}; of a mask the classes are compared",
    )


def compare_output(
    output: Output,
    measured: Sequence[Values],
    scores: Sequence[Values],
    tolerance: Tolerance,
    kind: OutputKind = OutputKind.LOGITS,
    *,
    pictures: Sequence[bool] | None = None,
) -> Comparison:
    """Return how the ``measured`` values of a file of ``kind`` differ from what follows from the network's ``scores``.

    Both are one array (1, C, H, W) per sample, ``tolerance`` is that of the scores. A pixel is wrong where its class
    differs although the margin between the two best scores exceeds twice that tolerance. The probability of one of
    two classes is compared together with that of the other one, so that ``relative_l2`` is that of all: the share of
    a probability that is almost 0 everywhere would say nothing.
    """
    classes = len(output.classes)
    if kind is OutputKind.LOGITS:
        return compare(output.name, measured, scores, tolerance, classes=classes, pictures=pictures)
    expected = [contracted(one, kind) for one in scores]
    bounds = tolerance_of(kind, tolerance)
    if any(a.shape != b.shape for a, b in zip(measured, expected, strict=True)):
        return compare(output.name, measured, expected, bounds)
    both = [two_at_least(one) for one in scores]
    if kind is OutputKind.MASK:
        chosen = [one_hot(one, both[0].shape[1]) for one in measured]
        found = compare_masks(output.name, chosen, both, tolerance, pictures=pictures)
    else:
        ours = [_all_classes(one) for one in measured]
        theirs = [_all_classes(one) for one in expected]
        masks = None
        if classes > 1:
            classified = [classes_in(one, kind) for one in measured]
            masks = Masks(classified, [best_class(one) for one in both], sure_pixels(both, tolerance))
        found = compare(output.name, ours, theirs, bounds, pictures=pictures, masks=masks)
    if expected[0].shape[1] > 1:
        return found
    sample, _, *place = found.worst_index
    return replace(found, worst_index=(sample, 0, *place))


def compare_masks(
    name: str,
    chosen: Sequence[Values],
    scores: Sequence[Values],
    tolerance: Tolerance,
    *,
    pictures: Sequence[bool] | None = None,
) -> Comparison:
    """Return how the classes ``chosen`` differ from the best ones of the network's ``scores``, both (1, C, H, W).

    ``chosen`` is 1 for the class of a pixel and 0 for the others, as ``one_hot`` returns it; ``tolerance`` is that of
    the scores.
    """
    best = [one.argmax(axis=1, keepdims=True).astype(np.float64) for one in scores]
    masks = Masks(
        [best_class(one) for one in chosen], [best_class(one) for one in scores], sure_pixels(scores, tolerance)
    )
    found = compare(
        name,
        chosen,
        [one_hot(one, scores[0].shape[1]) for one in best],
        tolerance_of(OutputKind.MASK, tolerance),
        pictures=pictures,
        masks=masks,
    )
    unknown = sum(int((one == NO_CLASS).sum()) for one in masks.found)
    more = (f"{unknown} values are none of the class numbers 0 to {scores[0].shape[1] - 1}",) if unknown else ()
    return replace(found, failures=(*found.failures, *more))


def one_hot(mask: NDArray[np.generic], count: int) -> NDArray[np.float64]:
    """Return ``mask`` (1, 1, H, W) of class numbers as (1, ``count``, H, W): 1 for the class, NaN where it has none."""
    classes = classes_in(mask, OutputKind.MASK)[:, None]
    known = (classes >= 0) & (classes < count)
    return np.where(known, (classes == np.arange(count).reshape(1, count, 1, 1)).astype(np.float64), np.nan)


def holds_probabilities(values: Sequence[Values]) -> bool:
    """Return whether all of ``values`` (1, C, H, W) lie in 0 to 1 and sum to 1 over the classes."""
    return all(
        value.ndim >= 2
        and value.shape[1] > 1
        and in_unit_range(value)
        and bool(np.all(np.abs(value.astype(np.float64).sum(axis=1) - 1) <= _SUM_TOLERANCE))
        for value in values
    )


def in_unit_range(value: Values) -> bool:
    """Return whether all of ``value`` lie in 0 to 1, as far as half precision tells."""
    array = value.astype(np.float64)
    return bool(np.all(array >= -_RANGE_TOLERANCE) and np.all(array <= 1 + _RANGE_TOLERANCE))


def require_scores(output: Output, scores: Sequence[Values], kind: OutputKind) -> None:
    """Raise UsageError where the network gives probabilities by itself: those of them would say something else."""
    single = all(one.ndim >= 2 and one.shape[1] == 1 and in_unit_range(one) for one in scores)
    if kind is OutputKind.LOGITS or not (single or holds_probabilities(scores)):
        return
    raise UsageError(
        f"The network gives probabilities by itself: no {kind} follows from them as from scores.",
        where=f"output {output.name}",
        found="values from 0 to 1" + ("" if single else " that sum to 1 over the classes"),
        expected="scores",
        next_step="export with --output-kind logits, or let forward return what comes before its softmax or sigmoid",
    )


def two_at_least(scores: Values) -> Values:
    """Return ``scores`` (1, C, H, W), a single one behind the 0 of its counterpart."""
    return scores if scores.shape[1] > 1 else np.concatenate([np.zeros_like(scores), scores], axis=1)


def _all_classes(probabilities: Values) -> NDArray[np.float64]:
    """Return ``probabilities`` (1, C, H, W) in float64, that of one of two classes behind its counterpart's."""
    values = probabilities.astype(np.float64)
    return values if values.shape[1] > 1 else np.concatenate([1 - values, values], axis=1)

"""Shares of pixels that are right: of all pixels, and as a mean over the classes that are there."""

from __future__ import annotations

from deploykit.metrics.confusion import Confusion


def pixel_accuracy(counts: Confusion) -> float:
    """Return the share of the image's pixels whose class is right."""
    return (counts.true_positive + counts.true_negative) / counts.pixels


def mean_class_accuracy(counts: Confusion) -> float:
    """Return the mean over classes of the share of a class's true pixels that were found.

    A class without a true pixel has no such share and is left out of the mean.
    """
    shares = [
        right / (right + wrong)
        for right, wrong in (
            (counts.true_positive, counts.false_negative),
            (counts.true_negative, counts.false_positive),
        )
        if right + wrong
    ]
    return sum(shares) / len(shares)

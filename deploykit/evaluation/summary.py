"""Means over images with their intervals, and the difference of each subject to the first one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploykit.evaluation.records import ClipScore, Estimate, ImageScore, Summary
from deploykit.metrics.interval import bootstrap_interval
from deploykit.metrics.overlap import pooled_two_class_miou

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """One figure, with its ``title`` for people; ``of_clips`` tells whether it is taken over clips or images."""

    name: str
    title: str
    of_clips: bool = False


POOLED = "pooled_two_class_miou"
METRICS = (
    Metric("foreground_iou", "mean IoU of the portrait"),
    Metric("two_class_miou", "mean IoU of portrait and background"),
    Metric(POOLED, "the same, all pixels pooled"),
    Metric("edge_iou", "mean edge IoU"),
    Metric("boundary_f1", "boundary F1"),
    Metric("pixel_accuracy", "pixel accuracy"),
    Metric("mean_class_accuracy", "mean class accuracy"),
    Metric("flicker", "temporal flicker", of_clips=True),
    Metric("clip_iou", "mean IoU in the clips", of_clips=True),
)


def summarise(
    images: Sequence[ImageScore],
    clips: Sequence[ClipScore],
    first: tuple[Sequence[ImageScore], Sequence[ClipScore]] | None = None,
) -> tuple[Summary, ...]:
    """Return one summary per metric; with the scores of the ``first`` subject on the same images also differences.

    Intervals are 95 % percentile bootstrap intervals over images (clips for those metrics). That of a difference
    resamples the images of both subjects together: what makes an image hard for both drops out.
    """
    found = []
    for metric in METRICS:
        if metric.of_clips and not clips:
            continue
        own = _columns(metric, clips if metric.of_clips else images)
        others = None if first is None else _columns(metric, first[1] if metric.of_clips else first[0])
        found.append(_summary(metric, own, others))
    return tuple(found)


def _columns(metric: Metric, scores: Sequence[Any]) -> tuple[Values, ...]:
    """Return what the metric's statistic takes: values with NaN where undefined, or the four counts."""
    if metric.name == POOLED:
        names = ("true_positive", "false_positive", "false_negative", "true_negative")
        return tuple(np.array([getattr(score.counts, name) for score in scores], np.float64) for name in names)
    name = "foreground_iou" if metric.name == "clip_iou" else metric.name
    values = [getattr(score, name) for score in scores]
    return (np.array([np.nan if value is None else value for value in values], np.float64),)


def _summary(metric: Metric, own: tuple[Values, ...], first: tuple[Values, ...] | None) -> Summary:
    statistic: Callable[..., Any] = pooled_two_class_miou if metric.name == POOLED else np.mean
    defined = np.isfinite(own[0])
    estimate = _estimate([column[defined] for column in own], statistic)
    count = int(np.count_nonzero(defined))
    difference = None
    if first is not None:
        both = defined & np.isfinite(first[0])
        difference = _difference([c[both] for c in own], [c[both] for c in first], statistic)
    return Summary(metric.name, estimate, count, len(defined) - count, difference)


def _estimate(columns: Sequence[Values], statistic: Callable[..., Any]) -> Estimate | None:
    if not len(columns[0]):
        return None
    return Estimate(float(statistic(*columns)), bootstrap_interval(columns, statistic))


def _difference(own: Sequence[Values], first: Sequence[Values], statistic: Callable[..., Any]) -> Estimate | None:
    size = len(own)

    def minus(*columns: Values, axis: int = -1) -> Any:
        return statistic(*columns[:size], axis=axis) - statistic(*columns[size:], axis=axis)

    return _estimate([*own, *first], minus)

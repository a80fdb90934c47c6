"""What an evaluation says: scores of images and clips, their means with intervals, and what was left out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deploykit.metrics.confusion import Confusion
from deploykit.vocab import Precision, Target


@dataclass(frozen=True)
class InvalidPair:
    """An image or mask of the data that cannot be used; ``name`` is relative to the folder, ``reason`` says why."""

    name: str
    reason: str


@dataclass(frozen=True)
class ImageScore:
    """One image, compared at the size of its true mask; a metric that the truth leaves undefined is None."""

    name: str
    height: int
    width: int
    counts: Confusion
    foreground_iou: float
    two_class_miou: float
    edge_iou: float | None
    boundary_f1: float | None
    pixel_accuracy: float
    mean_class_accuracy: float


@dataclass(frozen=True)
class ClipScore:
    """One generated clip: the flicker of its masks, and the mean IoU of the portrait over its frames."""

    seed: int
    frames: int
    flicker: float | None
    foreground_iou: float


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval, or None where there were fewer than two values to resample."""

    value: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Summary:
    """One metric of one subject over all images (or clips), and its difference to the first subject.

    ``count`` is the number of images that have a value, ``undefined`` that of those without; ``estimate`` is None
    where none has. ``difference`` is this subject minus the first one on the same images, None for the first.
    """

    metric: str
    estimate: Estimate | None
    count: int
    undefined: int
    difference: Estimate | None = None


@dataclass(frozen=True)
class Evaluation:
    """One network or exported file on the data. ``runtime`` computed it; ``input_size`` is height and width.

    ``path`` is the file that was named, None for a recipe.
    """

    subject: str
    recipe: str
    runtime: str
    input_size: tuple[int, int]
    summaries: tuple[Summary, ...]
    images: tuple[ImageScore, ...]
    clips: tuple[ClipScore, ...]
    recipe_sha256: str
    checkpoint_sha256: str
    target: Target | None = None
    precision: Precision | None = None
    content_hash: str | None = None
    path: Path | None = None

    def summary(self, metric: str) -> Summary:
        """Return the summary of ``metric``. Raises KeyError where there is none."""
        for one in self.summaries:
            if one.metric == metric:
                return one
        raise KeyError(metric)


@dataclass(frozen=True)
class Settings:
    """What decided the figures besides the data and the subjects; sizes are in pixels of the true mask."""

    edge_sigma: float
    boundary_band: int
    mask_threshold: float | None
    clip_seeds: tuple[int, ...]
    clip_frames: int
    confidence: float
    interval_method: str
    resamples: int
    interval_seed: int


@dataclass(frozen=True)
class EvaluationRun:
    """Several subjects on the same data. ``found`` pairs were there, ``invalid`` of them were left out."""

    data: str
    found: int
    invalid: tuple[InvalidPair, ...]
    settings: Settings
    evaluations: tuple[Evaluation, ...]

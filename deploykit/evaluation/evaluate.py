"""Several subjects on the same images and clips: opened, run side by side, scored and summarised."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from deploykit.errors import UsageError
from deploykit.evaluation.dataset import HELD_OUT_SEEDS, REPORT_EVERY, Dataset, SyntheticSet, drawn_side, read_folder
from deploykit.evaluation.predict import Predictor, opened
from deploykit.evaluation.records import ClipScore, Evaluation, EvaluationRun, ImageScore, Settings
from deploykit.evaluation.score import score_clip, score_image
from deploykit.evaluation.subjects import Named, resolve
from deploykit.evaluation.summary import summarise
from deploykit.images.synthetic.motion import Clip, synthesize_clip
from deploykit.metrics.boundary_f1 import BAND_WIDTH
from deploykit.metrics.edge_iou import DEFAULT_SIGMA
from deploykit.metrics.interval import CONFIDENCE, METHOD, RESAMPLES, SEED

# Apart from the seeds of training and of the held-out portraits.
CLIP_SEEDS = range(910_000, 910_064)
CLIP_FRAMES = 16
DEFAULT_CLIPS = 8

Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What a user may choose; ``samples`` None takes all, ``clips`` 0 leaves the clips out."""

    samples: int | None = None
    clips: int = DEFAULT_CLIPS
    edge_sigma: float = DEFAULT_SIGMA
    mask_threshold: float | None = None
    skip_invalid: bool = False
    threads: int = 1


def evaluate(
    *subjects: Named,
    data: Path | str | None = None,
    checkpoint: Path | str | None = None,
    checkpoint_key: str | None = None,
    options: Options | None = None,
    report: Say | None = None,
) -> EvaluationRun:
    """Return how well ``subjects`` cut out portraits: networks in PyTorch, and exported files in their runtimes.

    A subject is a recipe, a checkpoint, an exported file or a folder of them, by name, path or record; with none the
    default recipe is taken. ``data`` is a folder with ``images/`` and ``masks/``; without it, the held-out synthetic
    portraits are drawn at each subject's input size. Masks are compared at the size of the true mask. Flicker is
    measured on generated clips at the input's size whatever ``data`` is, since only there the motion is known; a
    network for video gets its own output of the frame before, and on single images its input of a first frame.

    Raises:
        UsageError: options out of range, a subject that is none or is given twice.
        ImageError: data that cannot be used, all of it listed.
        RecipeError: a network that does not take photos or gives no masks.
        CheckpointError, ArtifactError, TargetError: a subject that cannot be loaded or run.
        VerificationError: scores that are not finite.
    """
    say = report or (lambda message: None)
    chosen = options or Options()
    _check(chosen, data)
    say("loading")
    found = resolve(
        subjects, checkpoint=None if checkpoint is None else Path(checkpoint), checkpoint_key=checkpoint_key
    )
    dataset = _dataset(data, chosen, say)
    with ExitStack() as stack:
        predictors = [stack.enter_context(opened(one, chosen.threads)) for one in found]
        images = _images(predictors, dataset, chosen.edge_sigma, say)
        clips = _clips(predictors, CLIP_SEEDS[: chosen.clips], say)
    say("resampling for the intervals")
    return EvaluationRun(
        data=dataset.description,
        found=len(dataset.names) + len(dataset.invalid),
        invalid=dataset.invalid,
        settings=Settings(
            edge_sigma=chosen.edge_sigma,
            boundary_band=BAND_WIDTH,
            mask_threshold=chosen.mask_threshold,
            clip_seeds=tuple(CLIP_SEEDS[: chosen.clips]),
            clip_frames=CLIP_FRAMES,
            confidence=CONFIDENCE,
            interval_method=METHOD,
            resamples=RESAMPLES,
            interval_seed=SEED,
        ),
        evaluations=tuple(
            _evaluation(predictor, images[index], clips[index], (images[0], clips[0]) if index else None)
            for index, predictor in enumerate(predictors)
        ),
    )


def _check(options: Options, data: Path | str | None) -> None:
    if data is not None and options.samples is not None:
        raise UsageError(
            "--samples and --data do not go together.",
            found=f"{options.samples} and {data}",
            expected="how many synthetic portraits to draw, or the folder to evaluate on",
        )
    if data is None and (options.skip_invalid or options.mask_threshold is not None):
        raise UsageError("--skip-invalid and --mask-threshold need a folder of masks.", expected="--data DIR as well")
    threshold = options.mask_threshold
    bounds = (
        ("--clips", options.clips, 0 <= options.clips <= len(CLIP_SEEDS), f"0 to {len(CLIP_SEEDS)}"),
        ("--edge-sigma", options.edge_sigma, 0 < options.edge_sigma < math.inf, "a positive number of pixels"),
        ("--mask-threshold", threshold, threshold is None or 0 < threshold <= 1, "above 0 and at most 1"),
        ("--threads", options.threads, options.threads >= 1, "at least 1"),
    )
    for where, value, holds, expected in bounds:
        if not holds:
            raise UsageError("The value is out of range.", where=where, found=str(value), expected=expected)


def _dataset(data: Path | str | None, options: Options, say: Say) -> Dataset:
    if data is None:
        return SyntheticSet(len(HELD_OUT_SEEDS) if options.samples is None else options.samples)
    return read_folder(Path(data), threshold=options.mask_threshold, skip_invalid=options.skip_invalid, report=say)


def _images(predictors: Sequence[Predictor], dataset: Dataset, sigma: float, say: Say) -> list[list[ImageScore]]:
    """Return the scores of each predictor; every image is read, or drawn for a size, only once."""
    scores: list[list[ImageScore]] = [[] for _ in predictors]
    for index, name in enumerate(dataset.names):
        if index % REPORT_EVERY == 0:
            say(f"image {index} of {len(dataset.names)}")
        samples = {side: dataset.read(name, side) for side in {one.side for one in predictors}}
        for predictor, own in zip(predictors, scores, strict=True):
            sample = samples[predictor.side]
            mask, _ = predictor.predict(sample.image, predictor.first_feedback())
            own.append(score_image(name, mask, sample.mask, sigma))
    return scores


def _clips(predictors: Sequence[Predictor], seeds: Sequence[int], say: Say) -> list[list[ClipScore]]:
    scores: list[list[ClipScore]] = [[] for _ in predictors]
    for index, seed in enumerate(seeds):
        say(f"clip {index} of {len(seeds)}")
        sides = {drawn_side(one.side) for one in predictors}
        clips: dict[int, Clip] = {side: synthesize_clip(seed, side, CLIP_FRAMES) for side in sides}
        for predictor, own in zip(predictors, scores, strict=True):
            own.append(score_clip(predictor, clips[drawn_side(predictor.side)], seed))
    return scores


def _evaluation(
    predictor: Predictor,
    images: Sequence[ImageScore],
    clips: Sequence[ClipScore],
    first: tuple[Sequence[ImageScore], Sequence[ClipScore]] | None,
) -> Evaluation:
    subject, photo = predictor.subject, predictor.photo
    artifact, network = subject.artifact, subject.network
    return Evaluation(
        subject=subject.name,
        recipe=subject.recipe.name,
        runtime=predictor.runtime,
        input_size=(photo.height, photo.width),
        summaries=summarise(images, clips, first),
        images=tuple(images),
        clips=tuple(clips),
        recipe_sha256=artifact.recipe_sha256 if artifact else subject.recipe.sha256,
        checkpoint_sha256=(artifact.checkpoint_sha256 if artifact else network.checkpoint_sha256 if network else ""),
        target=artifact.plan.target if artifact else None,
        precision=artifact.plan.precision if artifact else None,
        content_hash=artifact.content_hash if artifact else None,
        path=subject.path,
    )

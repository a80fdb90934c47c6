"""One preview from input to output: frames, masks, post-processing, pictures, and the record of all of it.

Two threads share the work: one decodes and infers, the other one makes pictures and writes them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from deploykit.errors import DeploykitError, UsageError
from deploykit.evaluation.predict import Predictor, opened
from deploykit.evaluation.subjects import Named, resolve
from deploykit.images.preprocess import Pixels
from deploykit.metrics.flicker import Visible
from deploykit.preview.ahead import ahead
from deploykit.preview.backgrounds import Background, Chequered, background_of
from deploykit.preview.change import ChangeMeter, seen_before
from deploykit.preview.choices import Picture
from deploykit.preview.clock import Clock
from deploykit.preview.composite import beside_each_other, cut_out, grey, hardened, in_colour, over, soft_edge
from deploykit.preview.fusion import Fuser
from deploykit.preview.matte import mattes
from deploykit.preview.morphology import opening, require_kernel
from deploykit.preview.motion import MotionTracker
from deploykit.preview.records import Ended, Kind, Options, Previewed, PreviewRun
from deploykit.preview.sinks import DEFAULT_OUTPUTS, Sink, VideoSink, another_size, sink_for
from deploykit.preview.sources import Source, opened_source

FloatArray = NDArray[np.float32]
Say = Callable[[str], None]
Publish = Callable[[Pixels], None]

# How far decoding and inference may be ahead of the pictures; a camera's pictures are to be new ones.
_DEPTH, _CAMERA_DEPTH = 4, 1
_REPORT_S = 1.0
_MOST_FRAMES_PER_S = 240.0


def preview(
    artifacts: Sequence[Named],
    source: str,
    output: Path | None,
    options: Options,
    *,
    publish: Publish | None = None,
    report: Say | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> PreviewRun:
    """Run ``artifacts`` over the frames of ``source`` and write what comes of them to ``output``; return the record.

    ``source`` is as ``opened_source`` takes it. ``publish`` gets each picture (H, W, 3) as well; with it and without
    an output nothing is written, and the frames of a video come no faster than they were taken. Without both the
    output is that of ``DEFAULT_OUTPUTS``. One mask alone is written with one channel and one cut-out with alpha, where
    the format has that. Once ``stopped`` returns True the preview ends, and what there is is kept.

    What ends the frames early after the first one is no error but the record's ``problem``: the frames so far are
    kept. Raises UsageError for options that do not go together, RecipeError, CheckpointError, ArtifactError or
    TargetError for what cannot be run, ImageError or DeviceError for an input without one good frame.
    """
    say = report or (lambda message: None)
    background = _checked(options)
    with ExitStack() as stack:
        stack.enter_context(_opencv_threads(options.threads))
        frames = stack.enter_context(opened_source(source))
        place = output if output is not None or publish is not None else DEFAULT_OUTPUTS[frames.kind]
        sink = None if place is None else sink_for(place, frames, options.fps, options.codec)
        say("loading")
        subjects = resolve(artifacts)
        predictors = [stack.enter_context(opened(one, options.threads)) for one in subjects]
        player = _Player(frames, predictors, sink, options, background=background, publish=publish)
        return player.play(say, stopped)


class _Player:
    """The state of one preview."""

    def __init__(
        self,
        source: Source,
        predictors: Sequence[Predictor],
        sink: Sink | None,
        options: Options,
        *,
        background: Background,
        publish: Publish | None,
    ) -> None:
        self._source, self._predictors, self._sink = source, predictors, sink
        self._options, self._background, self._publish = options, background, publish
        self._clock = Clock()
        self._tracker = MotionTracker(options.preset)
        self._fusers = [Fuser() for _ in predictors]
        self._plain = [ChangeMeter() for _ in predictors]
        self._fused = [ChangeMeter() for _ in predictors]
        self._shares = [0.0 for _ in predictors]
        self._frames = 0
        self._shape: tuple[int, ...] = (0, 0, 3)
        self._sizes: set[tuple[int, ...]] = set()

    def play(self, say: Say, stopped: Callable[[], bool]) -> PreviewRun:
        """Take every frame through all stages and return the record."""
        begun, cpu = time.perf_counter(), time.process_time()
        ended, problem = Ended.COMPLETE, None
        try:
            self._take_all(say, stopped, begun)
            if stopped():
                ended = Ended.STOPPED
        except DeploykitError as error:
            if self._frames == 0:
                raise
            ended, problem = Ended.FAILED, str(error)
        finally:
            self._settle()
        seconds = time.perf_counter() - begun
        return self._record(ended, problem, seconds, time.process_time() - cpu)

    def _take_all(self, say: Say, stopped: Callable[[], bool], begun: float) -> None:
        depth = _CAMERA_DEPTH if self._source.kind is Kind.CAMERA else _DEPTH
        made = mattes(islice(self._source.frames(), self._options.most_frames), self._predictors, self._clock)
        reported = begun
        pause = self._pause()
        with ahead(made, depth, stopped) as found:
            for frame, alphas in found:
                if self._frames and frame.pixels.shape != self._shape and self._one_size():
                    raise another_size(frame.name, frame.pixels.shape, self._shape)
                self._shape = frame.pixels.shape
                self._sizes.add(self._shape)
                followed = self._followed(frame.pixels, alphas)
                with self._clock.time("composite"):
                    alone = self._alone(frame.pixels, followed)
                    shown = self._shown(frame.pixels, followed) if alone is None or self._publish else alone
                with self._clock.time("encode"):
                    if self._sink is not None:
                        self._sink.write(frame, shown if alone is None else alone)
                    if self._publish is not None:
                        self._publish(shown)
                self._frames += 1
                now = time.perf_counter()
                if now - reported >= _REPORT_S:
                    reported = now
                    say(self._progress(now - begun))
                time.sleep(max(0.0, begun + self._frames * pause - now))

    def _settle(self) -> None:
        """Keep what was written, or leave nothing half-written where that was nothing."""
        if self._sink is None:
            return
        if self._frames:
            self._sink.finish()
        else:
            self._sink.abort()

    def _pause(self) -> float:
        """The seconds from one frame to the next where a video is only looked at; else 0."""
        watched = self._sink is None and self._source.kind in (Kind.VIDEO, Kind.FOLDER)
        fps = self._options.fps or self._source.fps
        return 1 / fps if watched and fps else 0.0

    def _one_size(self) -> bool:
        """Whether all frames must have one size: in a video, and where masks are followed from frame to frame."""
        return self._options.fuse or isinstance(self._sink, VideoSink)

    def _followed(self, frame: Pixels, alphas: Sequence[FloatArray]) -> list[FloatArray]:
        """Return the masks (H, W) of ``frame`` after their post-processing."""
        motion, visible = None, None
        found = []
        if self._source.total != 1:
            with self._clock.time("post-processing"):
                motion = self._tracker.follow(frame)
            with self._clock.time("flicker"):
                visible = None if motion is None else seen_before(motion)
        for index, alpha in enumerate(alphas):
            with self._clock.time("post-processing"):
                opened_up = opening(alpha, self._options.open_pixels) if self._options.open_pixels else alpha
                fused = self._fusers[index].next(opened_up, motion) if self._options.fuse else opened_up
            with self._clock.time("flicker"):
                self._measure(index, opened_up, fused, visible)
            found.append(fused)
        return found

    def _alone(self, frame: Pixels, alphas: Sequence[FloatArray]) -> Pixels | None:
        """Return the one mask (H, W) or the one cut-out (H, W, 4) for a file that takes such; None for all others."""
        if self._sink is None or self._options.side_by_side or len(alphas) > 1:
            return None
        if self._options.picture is Picture.MASK and 1 in self._sink.channels:
            return self._levels(alphas[0])
        if self._options.picture is Picture.CUT_OUT and 4 in self._sink.channels:
            return cut_out(frame, self._edge(alphas[0]))
        return None

    def _shown(self, frame: Pixels, alphas: Sequence[FloatArray]) -> Pixels:
        """Return the picture (H, W, 3) of all artifacts, beside the source where it was asked for."""
        tiles = [("source", frame)] if self._options.side_by_side else []
        for predictor, alpha in zip(self._predictors, alphas, strict=True):
            tiles.append((predictor.subject.name, self._tile(frame, alpha)))
        return beside_each_other(tiles)

    def _tile(self, frame: Pixels, alpha: FloatArray) -> Pixels:
        if self._options.picture is Picture.MASK:
            return in_colour(self._levels(alpha))
        edge = self._edge(alpha)
        return over(frame, self._background.behind(frame, edge), edge)

    def _levels(self, alpha: FloatArray) -> Pixels:
        return grey(hardened(alpha) if self._options.hard_edges else alpha)

    def _edge(self, alpha: FloatArray) -> FloatArray:
        return hardened(alpha) if self._options.hard_edges else soft_edge(alpha)

    def _measure(self, index: int, plain: FloatArray, fused: FloatArray, visible: Visible | None) -> None:
        self._shares[index] += float(cv2.mean(fused)[0])
        if self._source.total == 1:
            return
        size = self._tracker.size
        self._plain[index].add(plain, visible, size)
        if self._options.fuse:
            self._fused[index].add(fused, visible, size)

    def _progress(self, seconds: float) -> str:
        wanted = [count for count in (self._source.total, self._options.most_frames) if count]
        of = f" of {min(wanted)}" if wanted else ""
        stages = ", ".join(f"{one.name} {one.wall_s * 1e3:.1f}" for one in self._clock.stages(self._frames))
        return f"frame {self._frames}{of}, {self._frames / seconds:.1f} frames/s; ms a frame: {stages}"

    def _record(self, ended: Ended, problem: str | None, seconds: float, cpu: float) -> PreviewRun:
        count = max(self._frames, 1)
        return PreviewRun(
            input=self._source.description,
            kind=self._source.kind,
            height=self._shape[0],
            width=self._shape[1],
            input_fps=self._source.fps,
            total=self._source.total,
            frames=self._frames,
            seconds=seconds,
            fps=self._frames / seconds,
            cpu_s_per_frame=cpu / count,
            stages=self._clock.stages(self._frames),
            previewed=tuple(
                Previewed(
                    name=predictor.subject.name,
                    runtime=predictor.runtime,
                    path=predictor.subject.path,
                    foreground=self._shares[index] / count,
                    flicker=self._plain[index].flicker,
                    flicker_fused=self._fused[index].flicker,
                )
                for index, predictor in enumerate(self._predictors)
            ),
            options=self._options,
            ended=ended,
            sizes=len(self._sizes),
            cuts=self._tracker.cuts,
            problem=problem,
            output=None if self._sink is None or not self._frames else self._sink.path,
            codec=None if self._sink is None else self._sink.codec,
        )


def _checked(options: Options) -> Background:
    """Return what is put behind the person. Raises UsageError for options that do not go together."""
    if options.open_pixels:
        require_kernel(options.open_pixels)
    if (options.background is None) == (options.picture is Picture.BACKGROUND):
        raise UsageError(
            "The person over another background needs one, and nothing else takes one.",
            found=f"--picture {options.picture}, --background {options.background or 'not given'}",
            expected="--background with an image, #rrggbb or blur",
        )
    bounds = (
        ("--frames", options.most_frames, options.most_frames is None or options.most_frames > 0, "at least 1"),
        ("--fps", options.fps, options.fps is None or 0 < options.fps <= _MOST_FRAMES_PER_S, "above 0, at most 240"),
        ("--codec", options.codec, options.codec is None or _four(options.codec), "four letters, such as mp4v or avc1"),
        ("--threads", options.threads, options.threads > 0, "at least 1"),
    )
    for where, value, holds, expected in bounds:
        if not holds:
            raise UsageError("The value is out of range.", where=where, found=str(value), expected=expected)
    return Chequered() if options.background is None else background_of(options.background)


def _four(code: str) -> bool:
    return len(code) == 4 and code.isascii() and code.isprintable()


@contextmanager
def _opencv_threads(threads: int) -> Iterator[None]:
    """Let OpenCV use as many threads as the runtimes, so that what a stage takes is counted where it happens."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(threads)
    try:
        yield
    finally:
        cv2.setNumThreads(before)

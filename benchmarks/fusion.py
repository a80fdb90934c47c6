"""What temporal fusion does to masks of noisy video, against the truth, and how fast ``deploykit preview`` is.

SINet's exported file cuts out generated portraits with sensor noise. Two kinds of clips: a hand-held camera, as in
``deploykit evaluate``, and a person who moves before a ground that stands still, so that ground is covered and
uncovered. Flicker and boundary F1 are the metrics of ``evaluate``; differences have 95 % intervals, bootstrap over
clips. The seeds are apart from those that the weights in deploykit/preview were chosen on.

Then one 640x480 video goes through ``preview`` with everything on, SINet, two threads in all: frames per second and
the time of each stage. Read the processor time where the machine is busy with something else.

Run: python benchmarks/fusion.py [--clips N] [--frames N] [--rounds N]
Exit code 1 where fusion takes away less than 20 % of the flicker, or boundary F1 is lower than without, or the video
is slower than 30 frames a second.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

import deploykit
from deploykit.chatter import contained
from deploykit.evaluation.predict import Predictor, opened
from deploykit.evaluation.subjects import resolve
from deploykit.images.synthetic.backdrop import paint_backdrop
from deploykit.images.synthetic.camera import photograph
from deploykit.images.synthetic.canvas import Picture as Canvas
from deploykit.images.synthetic.look import draw_look
from deploykit.images.synthetic.motion import synthesize_clip
from deploykit.latency.machine import device_name
from deploykit.metrics.boundary_f1 import boundary_f1
from deploykit.metrics.flicker import flicker
from deploykit.metrics.interval import bootstrap_interval
from deploykit.preview.choices import Picture, Preset
from deploykit.preview.clock import Clock
from deploykit.preview.fusion import FAST, STILL, Fuser
from deploykit.preview.matte import mattes
from deploykit.preview.motion import Motion, MotionTracker
from deploykit.preview.play import preview
from deploykit.preview.records import Options, PreviewRun
from deploykit.preview.sources import Frame
from deploykit.records import to_json, versioned

RECORD = Path(__file__).parent / "results" / "fusion.json"
SEEDS = range(930_200, 930_264)
SIDE, FRAMES = 224, 16
# Standard deviations of the sensor noise in grey levels; the clips have 3 of their own. The first one is judged.
NOISES = (12.0, 0.0, 24.0)
LEAST_REDUCTION, LEAST_FPS = 0.2, 30.0
VIDEO_SEED, VIDEO_FPS = 930_900, 30.0

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Shown:
    """``frames`` (T, H, W, 3), true ``masks`` (T, H, W), and for each but the first where its pixels were before."""

    frames: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    motion: list[NDArray[np.float64]]


def hand_held(seed: int, size: int, frames: int, noise: float) -> Shown:
    clip = synthesize_clip(seed, size, frames)
    motion = [clip.motion(index) for index in range(1, frames)]
    return Shown(_noisy(clip.frames.astype(np.float32), noise, seed), clip.masks, motion)


def moving_person(seed: int, size: int, frames: int, noise: float) -> Shown:
    """A person, cut out of a clip, before a ground that stands still; what was behind him or her was hidden."""
    clip = synthesize_clip(seed, size, frames)
    rng = np.random.default_rng([3, seed])
    canvas = Canvas(np.zeros((size, size, 3), np.float32), np.zeros((size, size), np.float32))
    paint_backdrop(canvas, draw_look(rng), rng)
    ground = photograph(canvas.pixels, rng).astype(np.float32)
    rows, columns = np.indices((size, size), dtype=np.float64)
    shots, motion = [], []
    for index, mask in enumerate(clip.masks):
        alpha = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 0.7)[:, :, None]
        shots.append(alpha * clip.frames[index] + (1 - alpha) * ground)
        if index:
            still = np.stack([columns, rows], axis=2)
            still[clip.masks[index - 1] > 0] = np.nan
            motion.append(np.where(mask[:, :, None] > 0, clip.motion(index), still))
    return Shown(_noisy(np.stack(shots), noise, seed), clip.masks, motion)


def _noisy(frames: NDArray[np.float32], noise: float, seed: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng([4, seed])
    return np.clip(frames + noise * rng.standard_normal(frames.shape, np.float32) + 0.5, 0, 255).astype(np.uint8)


KINDS: dict[str, Callable[[int, int, int, float], Shown]] = {
    "hand-held camera": hand_held,
    "moving person": moving_person,
}


def masks_of(alphas: Sequence[NDArray[np.float32]], motions: Sequence[Motion | None], variant: str) -> list[Mask]:
    """Return the masks of one clip: ``plain``, ``fused``, or ``by magnitude alone``, without trust in brightness."""
    if variant == "plain":
        return [alpha > 0.5 for alpha in alphas]
    if variant == "by magnitude alone":
        motions = [None if one is None else Motion(one.flow, np.ones_like(one.trust)) for one in motions]
    fuser = Fuser()
    return [fuser.next(alpha, motion) > 0.5 for alpha, motion in zip(alphas, motions, strict=True)]


VARIANTS = ("plain", "fused", "by magnitude alone")


def scored(clip: Shown, masks: list[Mask]) -> tuple[float, float]:
    truth = [mask > 0 for mask in clip.masks]
    edges = [boundary_f1(found, true) for found, true in zip(masks, truth, strict=True)]
    return flicker(masks, truth, clip.motion) or 0.0, float(np.mean([edge for edge in edges if edge is not None]))


def measure(predictor: Predictor, kind: str, noise: float, seeds: Sequence[int]) -> dict[str, Any]:
    values: dict[str, list[tuple[float, float]]] = {variant: [] for variant in VARIANTS}
    for seed in seeds:
        clip = KINDS[kind](seed, SIDE, FRAMES, noise)
        named = [Frame(str(index), pixels) for index, pixels in enumerate(clip.frames)]
        alphas = [found[0] for _, found in mattes(named, [predictor], Clock())]
        tracker = MotionTracker(Preset.FAST)
        motions = [tracker.follow(pixels) for pixels in clip.frames]
        for variant in VARIANTS:
            values[variant].append(scored(clip, masks_of(alphas, motions, variant)))
    plain = np.array(values["plain"])
    row: dict[str, Any] = {"clips": kind, "noise": noise, "count": len(plain), "plain": _pair(plain.mean(axis=0))}
    for variant in VARIANTS[1:]:
        own = np.array(values[variant])
        row[variant] = {
            **_pair(own.mean(axis=0)),
            "flicker_reduction": 1 - own[:, 0].mean() / plain[:, 0].mean(),
            "flicker_reduction_interval": bootstrap_interval(
                [own[:, 0], plain[:, 0]], lambda a, b, axis=-1: 1 - a.mean(axis=axis) / b.mean(axis=axis)
            ),
            "boundary_f1_difference": (own[:, 1] - plain[:, 1]).mean(),
            "boundary_f1_difference_interval": bootstrap_interval([own[:, 1] - plain[:, 1]]),
        }
    print(kind, noise, json.dumps(row, default=float), file=sys.stderr, flush=True)
    return row


def _pair(values: NDArray[np.float64]) -> dict[str, float]:
    return {"flicker": float(values[0]), "boundary_f1": float(values[1])}


def write_video(path: Path, frames: int) -> None:
    """Write a 640x480 video of a moving person, from one clip played to and fro."""
    clip = moving_person(VIDEO_SEED, 640, 30, NOISES[0])
    turns = [*range(30), *range(28, 0, -1)]
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), VIDEO_FPS, (640, 480))
    for index in range(frames):
        writer.write(cv2.cvtColor(clip.frames[turns[index % len(turns)], 80:560], cv2.COLOR_RGB2BGR))
    writer.release()


def speed(artifact: Path, folder: Path, frames: int, rounds: int) -> list[PreviewRun]:
    write_video(folder / "video.mp4", frames)
    options = Options(picture=Picture.BACKGROUND, background="blur", open_pixels=5, fuse=True)
    found = []
    for turn in range(rounds):
        found.append(preview([artifact], str(folder / "video.mp4"), folder / "out.mp4", options))
        stages = ", ".join(f"{one.name} {one.cpu_s * 1e3:.2f}" for one in found[-1].stages)
        load = os.getloadavg()[0]
        print(f"round {turn}: {found[-1].fps:.1f} frames/s at load {load:.1f}; {stages}", file=sys.stderr, flush=True)
    return found


def rounded(value: Any) -> Any:
    """Return JSON values with five significant digits, which are more than a run knows."""
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(one) for one in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=16, help="clips of each kind and noise")
    parser.add_argument("--frames", type=int, default=300, help="frames of the video")
    parser.add_argument("--rounds", type=int, default=5, help="how often the video is run")
    options = parser.parse_args()
    body: dict[str, Any] = {"device": device_name(), "still": STILL, "fast": FAST, "side": SIDE, "frames": FRAMES}
    with tempfile.TemporaryDirectory() as name:
        with contained():
            (artifact,) = deploykit.export("sinet", targets=["onnx"], output_dir=name)
        (subject,) = resolve([artifact])
        with opened(subject, 1) as predictor:
            body["runtime"] = predictor.runtime
            body["fusion"] = [
                measure(predictor, kind, noise, SEEDS[: options.clips]) for noise in NOISES for kind in KINDS
            ]
        runs = speed(artifact.path, Path(name), options.frames, options.rounds)
    best = max(runs, key=lambda run: run.fps)
    body["speed"] = {
        "options": to_json(best.options),
        "frames": best.frames,
        "fps": [run.fps for run in runs],
        "cpu_s_per_frame": [run.cpu_s_per_frame for run in runs],
        "stages_of_the_fastest": to_json(best.stages),
        "load_average": os.getloadavg()[0],
    }
    temporary = RECORD.with_suffix(".tmp")
    temporary.write_text(json.dumps(versioned("fusion", rounded(to_json(body))), indent=1) + "\n", encoding="utf-8")
    temporary.replace(RECORD)
    judged = [row["fused"] for row in body["fusion"] if row["noise"] == NOISES[0]]
    calmer = all(row["flicker_reduction"] >= LEAST_REDUCTION for row in judged)
    sharp = all(row["boundary_f1_difference"] >= 0 for row in judged)
    print(f"flicker {calmer}, boundary {sharp}, {best.fps:.1f} frames/s", file=sys.stderr)
    return 0 if calmer and sharp and best.fps >= LEAST_FPS else 1


if __name__ == "__main__":
    sys.exit(main())

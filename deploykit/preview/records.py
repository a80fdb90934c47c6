"""What a preview was asked for, and what it says at its end."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from deploykit.preview.choices import Picture, Preset


class Kind(StrEnum):
    """What the frames come from."""

    IMAGE = "image"
    FOLDER = "folder"
    VIDEO = "video"
    CAMERA = "camera"


class Ended(StrEnum):
    """Why a preview ended."""

    COMPLETE = "complete"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True)
class Options:
    """What a user may choose.

    ``background`` is a path, ``#rrggbb`` or ``blur`` and belongs to ``Picture.BACKGROUND``. ``open_pixels`` is the side
    of the opening's kernel, 0 for none. ``most_frames`` None takes all, ``fps`` None that of the input, ``codec`` None
    the best one that is there.
    """

    picture: Picture = Picture.CUT_OUT
    background: str | None = None
    side_by_side: bool = False
    hard_edges: bool = False
    open_pixels: int = 0
    fuse: bool = False
    preset: Preset = Preset.FAST
    most_frames: int | None = None
    fps: float | None = None
    codec: str | None = None
    threads: int = 1


@dataclass(frozen=True)
class Stage:
    """One step of the work: seconds of one frame on average, on the clock and of its own thread's processor time."""

    name: str
    wall_s: float
    cpu_s: float


@dataclass(frozen=True)
class Previewed:
    """One artifact: the mean share of the foreground, and how much its masks change from frame to frame.

    ``flicker`` is the share of pixels whose class changes along the optical flow, ``flicker_fused`` the same of the
    fused masks; None where no frame follows another one, or nothing is fused. There is no truth: what really changes,
    and what the flow gets wrong, counts in both.
    """

    name: str
    runtime: str
    path: Path | None
    foreground: float
    flicker: float | None
    flicker_fused: float | None


@dataclass(frozen=True)
class PreviewRun:
    """One preview. ``fps`` is that of the work, ``input_fps`` that of the input, None where it has none.

    ``height`` and ``width`` are those of the last frame in pixels, ``sizes`` how many different ones there were.
    ``total`` are the frames that the input promises, None for a camera. ``cuts`` counts changes of the scene, where
    fusion begins anew. ``problem`` says what ended it early where ``ended`` is failed. ``output`` is None where nothing
    was written.
    """

    input: str
    kind: Kind
    height: int
    width: int
    input_fps: float | None
    total: int | None
    frames: int
    seconds: float
    fps: float
    cpu_s_per_frame: float
    stages: tuple[Stage, ...]
    previewed: tuple[Previewed, ...]
    options: Options
    ended: Ended
    sizes: int = 1
    cuts: int = 0
    problem: str | None = None
    output: Path | None = None
    codec: str | None = None

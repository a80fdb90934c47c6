"""What a user chooses from (standard library only: the command line reads it at start)."""

from __future__ import annotations

from enum import StrEnum


class Picture(StrEnum):
    """What is made of a frame and its mask."""

    MASK = "mask"
    CUT_OUT = "cut-out"
    BACKGROUND = "background"


class Preset(StrEnum):
    """How thorough DIS optical flow is, from fastest to best."""

    ULTRAFAST = "ultrafast"
    FAST = "fast"
    MEDIUM = "medium"

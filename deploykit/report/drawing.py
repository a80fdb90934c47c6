"""Lines, dots and words on a sheet, written as SVG or as pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias
from xml.sax.saxutils import escape

import cv2
import numpy as np

from deploykit.images.preprocess import Pixels

# Pixels of a PNG for each unit of a drawing.
SCALE = 2
# OpenCV's Hershey letters are 21 units high at scale 1.
_LETTER = 30.0


@dataclass(frozen=True)
class Line:
    """A straight line through two points."""

    start: tuple[float, float]
    end: tuple[float, float]
    color: str


@dataclass(frozen=True)
class Dot:
    """A disc; one that is not ``filled`` is a ring."""

    center: tuple[float, float]
    radius: float
    color: str
    filled: bool = True


@dataclass(frozen=True)
class Words:
    """A line of text whose left end, middle or right end (``anchor`` start, middle, end) stands at ``at``."""

    at: tuple[float, float]
    text: str
    size: int = 12
    anchor: str = "start"


Item: TypeAlias = Line | Dot | Words


@dataclass(frozen=True)
class Drawing:
    """A white sheet with ``items`` on it, the first one lowest; x to the right and y down, from the top left."""

    width: int
    height: int
    items: tuple[Item, ...]


def as_svg(drawing: Drawing) -> str:
    """Return ``drawing`` as the text of an SVG file."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{drawing.width}" height="{drawing.height}" '
        'font-family="sans-serif">'
    )
    sheet = f'<rect width="{drawing.width}" height="{drawing.height}" fill="white"/>'
    return "\n".join([head, sheet, *map(_element, drawing.items), "</svg>", ""])


def _element(item: Item) -> str:
    if isinstance(item, Line):
        (x1, y1), (x2, y2) = item.start, item.end
        return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{item.color}"/>'
    if isinstance(item, Dot):
        x, y = item.center
        fill = item.color if item.filled else "white"
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{item.radius:g}" fill="{fill}" stroke="{item.color}"/>'
    x, y = item.at
    anchor = f'text-anchor="{item.anchor}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{item.size}" {anchor}>{escape(item.text)}</text>'


def as_pixels(drawing: Drawing) -> Pixels:
    """Return ``drawing`` as RGB pixels (H, W, 3), ``SCALE`` for each unit."""
    sheet = np.full((drawing.height * SCALE, drawing.width * SCALE, 3), 255, np.uint8)
    for item in drawing.items:
        _paint(sheet, item)
    return sheet


def _paint(sheet: Pixels, item: Item) -> None:
    if isinstance(item, Line):
        cv2.line(sheet, _pixel(item.start), _pixel(item.end), _rgb(item.color), 1, cv2.LINE_AA)
    elif isinstance(item, Dot):
        place, radius = _pixel(item.center), round(item.radius * SCALE)
        cv2.circle(sheet, place, radius, _rgb(item.color if item.filled else "white"), cv2.FILLED, cv2.LINE_AA)
        cv2.circle(sheet, place, radius, _rgb(item.color), 2, cv2.LINE_AA)
    else:
        scale = item.size * SCALE / _LETTER
        (width, _), _ = cv2.getTextSize(item.text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
        x, y = _pixel(item.at)
        left = x - {"start": 0, "middle": width // 2, "end": width}[item.anchor]
        cv2.putText(sheet, item.text, (left, y), cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), 1, cv2.LINE_AA)


def _pixel(point: tuple[float, float]) -> tuple[int, int]:
    return round(point[0] * SCALE), round(point[1] * SCALE)


def _rgb(color: str) -> tuple[int, int, int]:
    known = {"white": (255, 255, 255), "black": (0, 0, 0), "gray": (128, 128, 128), "lightgray": (211, 211, 211)}
    return known[color] if color in known else (int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16))

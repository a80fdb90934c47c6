"""The picture of ``quantization-report``: mIoU against bytes, and against latency, with both Pareto fronts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploykit.atomic import replacing
from deploykit.errors import ArtifactError, UsageError
from deploykit.quantization_report import Cell, Figures, QuantizationReport, value_of
from deploykit.report.drawing import Dot, Drawing, Item, Line, Words, as_pixels, as_svg
from deploykit.report.picture import write_image
from deploykit.vocab import Target

COLORS = {Target.ONNX: "#2b6cb0", Target.COREML: "#6b46c1", Target.TFLITE: "#dd6b20", Target.COREAI: "#2f855a"}
FORMATS = (".svg", ".png")
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 560, 400, 64, 64, 52
# mIoU this far below the best is drawn on the lower edge with its value: else one wreck would flatten all others.
DEEPEST = 0.05
_STEPS = (1, 2, 5)
# The size of a letter of a label, in units of the drawing.
_LETTER, _LABEL_HEIGHT = 5.6, 11.0


@dataclass(frozen=True)
class _Point:
    """One file in a panel: what it costs, its mIoU, and whether it is on the panel's front."""

    cell: Cell
    cost: float
    miou: float
    front: bool


@dataclass(frozen=True)
class _Panel:
    """One trade, drawn ``left`` units to the right."""

    title: str
    left: float
    points: tuple[_Point, ...]
    floor: float
    ceiling: float

    def x(self, cost: float) -> float:
        """Return where ``cost`` is on the logarithmic axis."""
        low, high = self.ends()
        return self.left + LEFT + (WIDTH - LEFT - 24) * math.log(cost / low) / math.log(high / low)

    def y(self, miou: float) -> float:
        """Return where ``miou`` is; below the axis it is on its lower edge."""
        share = (max(miou, self.floor) - self.floor) / (self.ceiling - self.floor)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share

    def ends(self) -> tuple[float, float]:
        """Return the lowest and the highest cost of the axis."""
        costs = [one.cost for one in self.points] or [1.0]
        return min(costs) / 1.15, max(costs) * 1.35


def check_picture(path: Path) -> None:
    """Raise UsageError where ``path`` is of no format that a chart can be written in."""
    if path.suffix.lower() not in FORMATS:
        raise UsageError(
            "The picture has no known format.", where="--picture", found=str(path), expected=" or ".join(FORMATS)
        )


def write_chart(report: QuantizationReport, path: Path) -> None:
    """Write the chart of ``report`` to ``path``, .svg or .png.

    Raises UsageError for another format, ArtifactError or ImageError where it cannot be written.
    """
    check_picture(path)
    drawing = chart(report)
    try:
        with replacing(path) as temporary:
            if path.suffix.lower() == ".png":
                write_image(temporary, as_pixels(drawing))
            else:
                temporary.write_text(as_svg(drawing), "utf-8")
    except OSError as error:
        raise ArtifactError(
            "The picture cannot be written.", where=str(path), found=error.strerror or str(error)
        ) from error


def chart(report: QuantizationReport) -> Drawing:
    """Return two panels beside each other; a target without a latency on this machine is in the first one alone."""
    sizes = tuple(_points(report, lambda one: one.size_bytes / 1000, lambda one: one.smallest))
    times = tuple(
        _points(report, lambda one: one.latency.median_s * 1000 if one.latency else None, lambda one: one.fastest)
    )
    reference = value_of(report.checkpoint, "two_class_miou")
    seen = [one.miou for one in sizes] + ([] if reference is None else [reference])
    best = max(seen, default=1.0)
    floor = max(min(seen, default=0.0), best - DEEPEST)
    room = max((best - floor) * 0.1, 0.001)
    panels = (
        _Panel("file, kB", 0.0, sizes, floor - room, best + room),
        _Panel("median latency here, ms", float(WIDTH), times, floor - room, best + room),
    )
    items: list[Item] = [
        Words((LEFT, 20), f"{report.recipe}: mIoU on {report.held_out} held-out portraits", 14),
        *_legend(report),
    ]
    for panel in panels:
        items += _axes(panel, reference)
        items += _front(panel)
        items += _marks(panel)
    return Drawing(2 * WIDTH, HEIGHT, tuple(items))


def _points(
    report: QuantizationReport, cost: Callable[[Figures], float | None], front: Callable[[Figures], bool]
) -> Iterator[_Point]:
    for cell in report.cells:
        figures = cell.figures
        value = None if figures is None else cost(figures)
        if figures is not None and figures.miou is not None and value:
            yield _Point(cell, value, figures.miou, front(figures))


def _legend(report: QuantizationReport) -> Iterator[Item]:
    targets = list(dict.fromkeys(one.target for one in report.cells if one.figures is not None))
    for place, target in enumerate(targets):
        x = LEFT + 6 + 80 * place
        yield Dot((x, 38), 5, COLORS[target])
        yield Words((x + 10, 42), target.value)
    x = LEFT + 6 + 80 * len(targets)
    yield Dot((x, 38), 5, "black", filled=False)
    yield Words((x + 10, 42), "a quantizer's defaults; line: Pareto front; gray line: checkpoint")


def _axes(panel: _Panel, reference: float | None) -> Iterator[Item]:
    left, right, low = panel.left + LEFT, panel.left + WIDTH - 24, HEIGHT - BOTTOM
    yield Line((left, low), (right, low), "black")
    yield Line((left, TOP - 6), (left, low), "black")
    yield Words(((left + right) / 2, HEIGHT - 12), panel.title, 12, "middle")
    for value in _round_values(panel.floor, panel.ceiling):
        yield Line((left - 4, panel.y(value)), (left, panel.y(value)), "black")
        yield Words((left - 8, panel.y(value) + 4), f"{value:.4f}", 11, "end")
    for value in _decades(*panel.ends()):
        yield Line((panel.x(value), low), (panel.x(value), low + 4), "black")
        yield Words((panel.x(value), low + 18), f"{value:g}", 11, "middle")
    if reference is not None:
        yield Line((left, panel.y(reference)), (right, panel.y(reference)), "lightgray")


def _round_values(low: float, high: float) -> list[float]:
    """Return about five round numbers between ``low`` and ``high``."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * one for one in (*_STEPS, 10) if power * one >= rough)
    first = math.ceil(low / step)
    return [step * index for index in range(first, math.floor(high / step) + 1)]


def _decades(low: float, high: float) -> list[float]:
    """Return 1, 2, 5, 10 and so on between ``low`` and ``high``."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [step * 10.0**power for power in powers for step in _STEPS if low <= step * 10.0**power <= high]


def _front(panel: _Panel) -> Iterator[Item]:
    """Yield the front as stairs: between two of its files nothing better is to be had than the cheaper one."""
    ordered = sorted((one for one in panel.points if one.front), key=lambda one: one.cost)
    for one, after in itertools.pairwise(ordered):
        corner = (panel.x(after.cost), panel.y(one.miou))
        yield Line((panel.x(one.cost), panel.y(one.miou)), corner, "gray")
        yield Line(corner, (panel.x(after.cost), panel.y(after.miou)), "gray")


def _marks(panel: _Panel) -> Iterator[Item]:
    taken: list[tuple[float, float, float, float]] = []
    for one in panel.points:
        x, y = panel.x(one.cost), panel.y(one.miou)
        taken.append((x - 5, y - 5, x + 5, y + 5))
    for one in panel.points:
        x, y = panel.x(one.cost), panel.y(one.miou)
        text = f"{one.cell.precision}{', defaults' if one.cell.defaults else ''}"
        text += f" ({one.miou:.2f})" if one.miou < panel.floor else ""
        yield Dot((x, y), 5 if one.front else 4, COLORS[one.cell.target], filled=not one.cell.defaults)
        yield Words(_free_place(x, y, len(text) * _LETTER, panel, taken), text, 11)


def _free_place(
    x: float, y: float, width: float, panel: _Panel, taken: list[tuple[float, float, float, float]]
) -> tuple[float, float]:
    """Return where a label of the point (x, y) meets the fewest others, and take it."""

    def box(at: tuple[float, float]) -> tuple[float, float, float, float]:
        return at[0], at[1] - _LABEL_HEIGHT, at[0] + width, at[1]

    def collisions(at: tuple[float, float]) -> int:
        left, top, right, low = box(at)
        outside = right > panel.left + WIDTH or left < panel.left + LEFT or low > HEIGHT - BOTTOM + 2
        return _overlaps((left, top, right, low), taken) + 4 * outside

    sides = (x + 8, x - 8 - width, x - width / 2)
    places = [(side, y + 4 + shift) for shift in (0, -12, 12, -24, 24, -36) for side in sides]
    chosen = min(places, key=collisions)
    taken.append(box(chosen))
    return chosen


def _overlaps(one: tuple[float, float, float, float], others: Sequence[tuple[float, float, float, float]]) -> int:
    left, top, right, low = one
    return sum(left < other[2] and other[0] < right and top < other[3] and other[1] < low for other in others)

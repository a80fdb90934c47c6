"""Charts from records as geometry: single runs of each file, and what accuracy costs in time and bytes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from deploykit.papers.figures import load_papers, rows
from deploykit.report_page.axes import Axis, Tick, around
from deploykit.report_page.records import Dossier, Matched, Timed
from deploykit.report_page.verdict import miou
from deploykit.vocab import Target

# In units of the drawing, which scales with the page.
WIDTH, STRIP, LEFT, MOST_LEFT, RIGHT = 760, 34, 150, 320, 24
PANEL_WIDTH, PANEL_HEIGHT, PANEL_LEFT, PANEL_TOP, PANEL_BOTTOM = 460, 320, 52, 16, 44
_DRAWN = 400
_HALF = 9.0
_LABEL_WIDTH, _BOLD_WIDTH, _LABEL_HEIGHT = 7.0, 8.2, 11.0
# mIoU this far below the best is drawn on the lower edge: else one wreck would flatten all others.
_DEEPEST = 6.0


@dataclass(frozen=True)
class Strip:
    """The runs of one file: ``dots`` is a path of points, ``low`` to ``high`` the interval of the median."""

    label: str
    detail: str
    y: float
    dots: str
    median: float
    low: float | None
    high: float | None
    beyond: int


@dataclass(frozen=True)
class Strips:
    """The runs of all files on one machine under one axis, in milliseconds; ``hidden`` says what is not drawn."""

    machine: str
    left: float
    height: float
    strips: tuple[Strip, ...]
    ticks: tuple[Tick, ...]
    summary: str
    hidden: tuple[str, ...]


@dataclass(frozen=True)
class Mark:
    """A file, or a row of a paper, in a panel; ``shape`` tells the target, ``number`` the row of the table."""

    number: str
    name: str
    x: float
    y: float
    shape: str
    label_x: float
    label_y: float
    front: bool = False
    paper: bool = False


@dataclass(frozen=True)
class Panel:
    """mIoU in percent against what it costs; ``stairs`` is the path of the Pareto front."""

    title: str
    unit: str
    marks: tuple[Mark, ...]
    stairs: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    summary: str


@dataclass(frozen=True)
class PaperPoint:
    """A network of this report as a paper prints it: on another device and on other images."""

    method: str
    paper: str
    device: str
    dataset: str
    latency_ms: float
    miou_percent: float


def strips(matched: Matched) -> tuple[Strips, ...]:
    """Return the runs of every file and of PyTorch, one chart for each device."""
    by_device: dict[str, list[tuple[str, Timed]]] = {}
    for network in matched.networks:
        named = [(one.name, timed) for one in network.dossiers for timed in one.latencies]
        named += [(timed.latency.artifact, timed) for timed in network.eager]
        for name, timed in named:
            by_device.setdefault(timed.latency.device, []).append((name, timed))
    return tuple(_strips(device, found) for device, found in by_device.items())


def _strips(device: str, found: Sequence[tuple[str, Timed]]) -> Strips:
    top = max(_fence(sorted(timed.latency.own_s)) for _, timed in found) * 1e3
    bottom = min(min(timed.latency.own_s) for _, timed in found) * 1e3
    low, high = around([bottom, top])
    left = min(MOST_LEFT, max(LEFT, 24 + _BOLD_WIDTH * max(len(name) for name, _ in found)))
    axis = Axis(max(low, 0.0), high, left, WIDTH - RIGHT)
    drawn = []
    for index, (name, timed) in enumerate(found):
        latency = timed.latency
        y = 8 + STRIP * index + STRIP / 2
        interval = latency.interval_s
        threads = f"{latency.threads} thread{'' if latency.threads == 1 else 's'}"
        drawn.append(
            Strip(
                label=name,
                detail=f"{threads}, {len(latency.own_s)} runs{', whole photo' if latency.steps else ''}",
                y=y,
                dots=_dots(sorted(latency.own_s), axis, y),
                median=axis.place(latency.median_s * 1e3),
                low=None if interval is None else axis.place(interval[0] * 1e3),
                high=None if interval is None else axis.place(interval[1] * 1e3),
                beyond=sum(one * 1e3 > axis.high for one in latency.own_s),
            )
        )
    fastest = min(found, key=lambda one: one[1].latency.median_s)
    summary = (
        f"Single runs of {len(found)} measurements on {device}. The shortest median is "
        f"{fastest[1].latency.median_s * 1e3:.2f} ms, of {fastest[0]}."
    )
    hidden = tuple(text for name, timed in found for text in _hidden(name, timed, axis))
    return Strips(device, left, 8 + STRIP * len(found) + 34, tuple(drawn), axis.ticks(), summary, hidden)


def _hidden(name: str, timed: Timed, axis: Axis) -> Iterator[str]:
    samples = timed.latency.own_s
    beyond = sum(one * 1e3 > axis.high for one in samples)
    if beyond:
        share = 100 * beyond / len(samples)
        yield (
            f"{name}: {beyond} of {len(samples)} runs ({share:.1f} %) are beyond the axis, the longest takes "
            f"{max(samples) * 1e3:.2f} ms."
        )
    if len(samples) > _DRAWN:
        yield f"{name}: of {len(samples)} runs one in {_step(len(samples))} is drawn, evenly from shortest to longest."


def _step(count: int) -> int:
    return max(1, -(-count // _DRAWN))


def _fence(ordered: Sequence[float]) -> float:
    """Return up to where runs are drawn: a few stray ones, counted at the edge, must not squeeze all others."""
    low, high = ordered[len(ordered) // 4], ordered[3 * len(ordered) // 4]
    return min(ordered[-1], high + 3 * (high - low))


def _dots(ordered: Sequence[float], axis: Axis, y: float) -> str:
    """Return runs as points of a path, spread over the height of the strip; of very many an even choice."""
    inside = [one * 1e3 for one in ordered[:: _step(len(ordered))] if one * 1e3 <= axis.high]
    # The golden ratio spreads neighbours evenly, and the same runs give the same picture.
    places = ((axis.place(value), y + _HALF * (2 * ((index * 0.618034) % 1) - 1)) for index, value in enumerate(inside))
    return "".join(f"M{x:.1f} {height:.1f}h0" for x, height in places)


def paper_points(matched: Matched) -> tuple[PaperPoint, ...]:
    """Return what the papers print about the networks here where they give both a time and a mean IoU."""
    recipes = {network.recipe for network in matched.networks}
    found = []
    for paper, table, row in rows(load_papers()):
        if row.recipe not in recipes or row.miou_percent is None:
            continue
        milliseconds = row.latency_ms or (None if row.fps is None else 1e3 / row.fps)
        if milliseconds is None:
            continue
        for dataset, percent in row.miou_percent.items():
            place = f"{paper.name}, {table.place}"
            found.append(PaperPoint(row.method, place, table.device or "", dataset, milliseconds, percent))
    return tuple(found)


def panels(matched: Matched) -> tuple[Panel, ...]:
    """Return mIoU against latency, the papers' points beside it, and against size; nothing where none was measured."""
    files = [(index, one) for index, one in enumerate(matched.dossiers, 1) if miou(one) is not None]
    timed = [(index, one, one.latencies[0].latency.median_s * 1e3) for index, one in files if one.latencies]
    sized = [(index, one, one.artifact.size_bytes / 1e3) for index, one in files]
    found = []
    if timed:
        found.append(
            _panel("mIoU against latency", "ms, median of one run, logarithmic axis", timed, paper_points(matched))
        )
    if sized:
        found.append(_panel("mIoU against size", "kB, the file, logarithmic axis", sized, ()))
    return tuple(found)


def _panel(title: str, unit: str, files: Sequence[tuple[int, Dossier, float]], papers: Sequence[PaperPoint]) -> Panel:
    values = {index: 100 * (miou(one) or 0.0) for index, one, _ in files}
    best = max(values.values())
    shown = [max(value, best - _DEEPEST) for value in values.values()] + [one.miou_percent for one in papers]
    x_low, x_high = around([cost for *_, cost in files] + [one.latency_ms for one in papers], logarithmic=True)
    x = Axis(x_low, x_high, PANEL_LEFT, PANEL_WIDTH - RIGHT, logarithmic=True)
    low, high = around(shown) if max(shown) > min(shown) else (best - 0.1, best + 0.1)
    y = Axis(low, min(high, 100.0) if best < 100 else high, PANEL_HEIGHT - PANEL_BOTTOM, PANEL_TOP)
    front = _front([(cost, values[index], index) for index, _, cost in files])
    points = [
        (str(index), one.name, x.place(cost), y.place(values[index]), one.artifact.plan.target.value, index in front)
        for index, one, cost in files
    ]
    taken = [(px - 6, py - 6, px + 6, py + 6) for _, _, px, py, _, _ in points]
    marks = []
    for number, name, px, py, shape, on_front in points:
        label = _free_place(px, py, number, taken)
        marks.append(Mark(number, name, px, py, shape, *label, front=on_front))
    for one in papers:
        px, py = x.place(one.latency_ms), y.place(one.miou_percent)
        label = _free_place(px, py, one.method, taken)
        marks.append(Mark(one.method, f"{one.method}, {one.paper}", px, py, "paper", *label, paper=True))
    ordered = [
        (x.place(cost), y.place(values[index]))
        for index, _, cost in sorted(files, key=lambda f: f[2])
        if index in front
    ]
    names = [one.name for index, one, _ in files if index in front]
    return Panel(
        title, unit, tuple(marks), _stairs(ordered), x.ticks(), y.ticks(), f"On the Pareto front: {', '.join(names)}."
    )


def _front(points: Sequence[tuple[float, float, int]]) -> set[int]:
    """Return the numbers of the points that no other one beats in cost and mIoU at once."""
    return {
        number
        for cost, value, number in points
        if not any((other <= cost and high >= value) and (other < cost or high > value) for other, high, _ in points)
    }


def _stairs(ordered: Sequence[tuple[float, float]]) -> str:
    """Return the front as stairs: between two of its files nothing better is to be had than the cheaper one."""
    if not ordered:
        return ""
    parts = [f"M{ordered[0][0]} {ordered[0][1]}"]
    parts += [f"H{after[0]}V{after[1]}" for _, after in itertools.pairwise(ordered)]
    return "".join(parts)


def _free_place(x: float, y: float, text: str, taken: list[tuple[float, float, float, float]]) -> tuple[float, float]:
    """Return where the label of the point (x, y) meets the fewest others, and take it."""
    width = _LABEL_WIDTH * len(text)

    def box(at: tuple[float, float]) -> tuple[float, float, float, float]:
        return at[0], at[1] - _LABEL_HEIGHT, at[0] + width, at[1]

    def cost(at: tuple[float, float]) -> float:
        left, top, right, low = box(at)
        outside = left < PANEL_LEFT or right > PANEL_WIDTH or top < 0 or low > PANEL_HEIGHT - PANEL_BOTTOM
        met = sum(left < one[2] and one[0] < right and top < one[3] and one[1] < low for one in taken)
        return met + 4 * outside + 0.001 * (abs(at[0] - x) + abs(at[1] - y))

    chosen = min(_places(x, y, width), key=cost)
    taken.append(box(chosen))
    return round(chosen[0], 1), round(chosen[1], 1)


def _places(x: float, y: float, width: float) -> Iterator[tuple[float, float]]:
    for shift in (4.0, -9.0, 17.0, -22.0, 30.0):
        for side in (x + 9, x - 9 - width, x - width / 2):
            yield side, y + shift


SHAPES: dict[str, str] = {
    Target.ONNX.value: "circle",
    Target.COREML.value: "square",
    Target.TFLITE.value: "triangle",
    Target.COREAI.value: "diamond",
}

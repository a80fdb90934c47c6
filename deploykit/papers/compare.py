"""Stated against measured: what the papers print about a network beside what was counted and measured here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from deploykit.errors import UsageError
from deploykit.papers.figures import Paper, Row, Table, rows
from deploykit.papers.measured import (
    HeldOut,
    Say,
    Subject,
    count,
    held_out,
    recorded_counts,
)
from deploykit.recipe import load_recipe
from deploykit.results.series import series_of
from deploykit.results.store import SavedRun

SYNTHETIC = "synthetic portraits"
_SCALES = {"params_millions": 1e6, "flops_giga": 1e9}
_TIMES = ("fps", "latency_ms")
_FIGURES = ("params_millions", "flops_giga", "miou_percent", *_TIMES)
_NO_DATASET = "the paper's dataset is not at hand"
_NOT_STATED = "the paper leaves it empty"
_NO_DEVICE = "nothing was measured on this device"


@dataclass(frozen=True)
class Place:
    """A table or section of a paper."""

    paper: str
    place: str


@dataclass(frozen=True)
class Line:
    """One figure of one recipe's network, stated, measured or both, in the unit that ``figure`` names.

    ``deviation_percent`` is ``100 * (measured / stated - 1)``; ``reason`` says why there is none. ``places`` are
    where it is stated. ``merged`` and ``outputs`` say which form was counted: with BatchNorm folded and branches merged
    or as it is trained, and with which outputs. ``metric``: a measured mean IoU is over the portraits or two classes.
    ``interval``: 95 % of a measured latency; ``measured_at``: when, UTC; ``cut_short``: why its run ended early, and
    ``disturbed``: by what it was disturbed, empty where it was not.
    """

    recipe: str
    figure: str
    stated: float | None = None
    measured: float | None = None
    deviation_percent: float | None = None
    convention: str | None = None
    merged: bool | None = None
    outputs: tuple[str, ...] = ()
    input_size: tuple[int, int] | None = None
    dataset: str | None = None
    metric: str | None = None
    device: str | None = None
    methods: tuple[str, ...] = ()
    places: tuple[Place, ...] = ()
    reason: str | None = None
    interval: tuple[float, float] | None = None
    measured_at: str | None = None
    cut_short: str = ""
    disturbed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """What is said about the networks of one paper, by it and by others, and what was measured here."""

    network: str
    name: str
    title: str | None
    year: int | None
    venue: str | None
    lines: tuple[Line, ...]
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class _Key:
    """What has to be equal for two cells to state one and the same thing; ``stated`` None: no cell states it."""

    figure: str
    stated: float | None
    convention: str | None = None
    input_size: tuple[int, int] | None = None
    dataset: str | None = None
    device: str | None = None


def known_names(papers: Sequence[Paper]) -> tuple[str, ...]:
    """Return what ``choose`` takes: the networks and the recipes of the papers."""
    return tuple(dict.fromkeys(name for paper in papers for name in (paper.network, *paper.recipes)))


def choose(papers: Sequence[Paper], name: str | None) -> tuple[tuple[Paper, tuple[str, ...]], ...]:
    """Return the papers meant by ``name``, a network or a recipe, each with its recipes that are meant; None is all.

    Raises UsageError, with the list of names, for one that no paper is about.
    """
    if name is None:
        return tuple((paper, paper.recipes) for paper in papers)
    for paper in papers:
        if name == paper.network:
            return ((paper, paper.recipes),)
    for paper in papers:
        if name in paper.recipes:
            return ((paper, (name,)),)
    raise UsageError(
        "No paper states figures for this network.",
        where="--network",
        found=name,
        expected="one of " + ", ".join(known_names(papers)),
    )


def compare(
    papers: Sequence[Paper],
    name: str | None,
    *,
    afresh: bool = False,
    runs: Sequence[SavedRun] = (),
    report: Say | None = None,
) -> tuple[Comparison, ...]:
    """Return what the papers state about the networks meant by ``name`` beside what was measured here.

    Without a name the figures are those of a network's own paper, and its cost in every convention that any paper
    takes; with one, all that any paper states. Counts are read from their record, or taken now if ``afresh`` and
    for a network that has none. The newest latencies in ``runs`` stand beside the papers', each with its own device;
    nothing is divided by anything of another device.
    """
    chosen = choose(papers, name)
    subjects = [subject for paper, recipes in chosen for subject in _wanted(papers, paper, recipes)]
    recorded = {} if afresh else recorded_counts()
    missing = [subject for subject in dict.fromkeys(subjects) if subject not in recorded]
    counts = {**recorded, **(count(missing, report or (lambda message: None)) if missing else {})}
    return tuple(
        Comparison(
            network=paper.network,
            name=paper.name,
            title=paper.title,
            year=paper.year,
            venue=paper.venue,
            lines=tuple(
                line
                for recipe in recipes
                for line in (*_lines(papers, paper, recipe, counts, by_others=name is not None), *_times(recipe, runs))
            ),
            remarks=tuple(remark.text for remark in paper.remarks if set(remark.recipes) & set(recipes)),
        )
        for paper, recipes in chosen
    )


def all_wanted(papers: Sequence[Paper]) -> tuple[Subject, ...]:
    """Return what has to be counted for every network of ``papers``."""
    return tuple(dict.fromkeys(one for paper in papers for one in _wanted(papers, paper, paper.recipes)))


def _wanted(papers: Sequence[Paper], paper: Paper, recipes: Sequence[str]) -> Iterator[Subject]:
    for recipe in recipes:
        for key in _stated(papers, paper, recipe):
            subject = _subject(paper, recipe, key)
            if subject is not None:
                yield subject


def _subject(paper: Paper, recipe: str, key: _Key) -> Subject | None:
    if key.figure not in _SCALES:
        return None
    figure = key.convention or "parameters"
    counting = paper.counting_of(figure)
    file = load_recipe(recipe).file
    size = key.input_size or _own_size(recipe)
    outputs = tuple(output.name for output in file.outputs if output.name not in counting.without)
    return Subject(recipe, figure, size, counting.merged, outputs)


def _stated(papers: Sequence[Paper], paper: Paper, recipe: str) -> dict[_Key, list[tuple[Paper, Table, Row]]]:
    """Return each different statement about ``recipe`` with the rows that make it, those of its own paper first.

    Parameters and cost that its own paper leaves empty are there without a row.
    """
    ordered = sorted(papers, key=lambda one: one is not paper)
    found: dict[_Key, list[tuple[Paper, Table, Row]]] = {}
    for one, table, row in rows(ordered):
        if row.recipe == recipe:
            for key in _keys(table, row):
                found.setdefault(key, []).append((one, table, row))
    present = {key.figure for key in found}
    if "params_millions" not in present:
        found[_Key("params_millions", None)] = []
    if "flops_giga" not in present:
        conventions = dict.fromkeys(row.convention for _, _, row in rows([paper]) if row.recipe in paper.recipes)
        for convention in conventions:
            if convention is not None:
                found[_Key("flops_giga", None, str(convention), _own_size(recipe))] = []
    return dict(sorted(found.items(), key=lambda item: _FIGURES.index(item[0].figure)))


def _own_size(recipe: str) -> tuple[int, int]:
    image = load_recipe(recipe).file.inputs[0]
    return image.height, image.width


def _keys(table: Table, row: Row) -> Iterator[_Key]:
    for figure in _FIGURES:
        printed = getattr(row, figure)
        if isinstance(printed, dict):
            for dataset, value in printed.items():
                yield _Key(figure, value, dataset=dataset)
        elif figure == "flops_giga" and printed is not None:
            yield _Key(figure, printed, str(row.convention), table.size_of(row))
        elif figure in _TIMES and printed is not None:
            yield _Key(figure, printed, input_size=table.size_of(row), device=table.device)
        elif printed is not None:
            yield _Key(figure, printed)


def _lines(
    papers: Sequence[Paper], paper: Paper, recipe: str, counts: dict[Subject, int], *, by_others: bool
) -> Iterator[Line]:
    stated = [
        _line(paper, recipe, key, places if by_others or not own else own, counts)
        for key, places in _stated(papers, paper, recipe).items()
        if (own := [place for place in places if place[0] is paper])
        or by_others
        or key.figure == "flops_giga"
        or key.stated is None
    ]
    score = held_out(load_recipe(recipe))
    yield from (line for line in stated if line.figure not in _TIMES)
    if score is not None:
        yield _score_line(paper, recipe, score)
    yield from (line for line in stated if line.figure in _TIMES)


def _times(recipe: str, runs: Sequence[SavedRun]) -> Iterator[Line]:
    """Yield the newest latencies of ``recipe`` in ``runs``, in milliseconds."""
    for one in series_of(runs, network=recipe):
        subject, last = one.subject, one.last
        form = f"{subject.target} {subject.precision}" if subject.target else ""
        threads = f"{subject.threads} thread{'' if subject.threads == 1 else 's'}"
        yield Line(
            recipe,
            "latency_ms",
            measured=1000 * last.median_s,
            device=", ".join(part for part in (subject.machine, subject.runtime, form, threads) if part),
            reason=_NO_DEVICE,
            interval=None if last.interval_s is None else (1000 * last.interval_s[0], 1000 * last.interval_s[1]),
            measured_at=last.started,
            cut_short=last.cut_short,
            disturbed=last.disturbed,
        )


def _line(
    paper: Paper, recipe: str, key: _Key, places: list[tuple[Paper, Table, Row]], counts: dict[Subject, int]
) -> Line:
    subject = _subject(paper, recipe, key)
    measured = None if subject is None else counts[subject] / _SCALES[key.figure]
    deviation = None
    if measured is not None and key.stated is not None:
        deviation = 100 * (measured / key.stated - 1)
    reason = _NOT_STATED if key.stated is None else _NO_DATASET if key.dataset else _NO_DEVICE
    return Line(
        recipe=recipe,
        figure=key.figure,
        stated=key.stated,
        measured=measured,
        deviation_percent=deviation,
        convention=key.convention,
        merged=None if subject is None else subject.merged,
        outputs=() if subject is None else subject.outputs,
        input_size=key.input_size,
        dataset=key.dataset,
        device=key.device,
        methods=tuple(dict.fromkeys(row.method for _, _, row in places)),
        places=tuple(dict.fromkeys(Place(one.name, table.place) for one, table, _ in places)),
        reason=None if deviation is not None else reason,
    )


def _score_line(paper: Paper, recipe: str, score: HeldOut) -> Line:
    value = score.portrait_iou if paper.miou == "portrait" else score.two_class_miou
    return Line(
        recipe=recipe,
        figure="miou_percent",
        measured=100 * value,
        dataset=SYNTHETIC,
        metric=paper.miou,
        reason="not comparable with a paper's dataset",
    )

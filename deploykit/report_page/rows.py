"""The rows of a report, in words: what the page and the release note are rendered from."""

from __future__ import annotations

from dataclasses import dataclass

from deploykit.report_page.calls import Call
from deploykit.report_page.charts import Panel, PaperPoint, Strips
from deploykit.report_page.pictures import Gallery
from deploykit.report_page.records import LeftOut, Standing, Verdict


@dataclass(frozen=True)
class Cell:
    """One cell: ``text``, a second line of ``detail``, the ``value`` it sorts by, and a verdict where it is one."""

    text: str
    detail: str = ""
    value: float | None = None
    standing: Standing | None = None


@dataclass(frozen=True)
class FileRow:
    """One file in the overview."""

    number: int
    name: str
    recipe: str
    target: str
    precision: str
    size: Cell
    latency: Cell
    miou: Cell
    difference: Cell
    verified: Cell
    gate: Cell


@dataclass(frozen=True)
class Check:
    """One output of a file against its checkpoint, when it was exported or when it was verified later."""

    file: str
    when: str
    output: str
    runtime: str
    max_abs_error: float
    relative_l2: float
    snr_db: float
    agreement: float | None
    wrong: int | None
    standing: Standing
    failures: tuple[str, ...]


@dataclass(frozen=True)
class PassRow:
    """What one pass did: how many places it changed, and what it left alone, reason → places."""

    name: str
    fired: int
    details: tuple[str, ...]
    skipped: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class PassTable:
    """The passes of a network, or of the files made from it that have the same report."""

    title: str
    rows: tuple[PassRow, ...]


@dataclass(frozen=True)
class Table:
    """Any other table: ``columns`` with whether they hold numbers, and cells whose first one names the row."""

    title: str
    sentence: str
    caption: str
    columns: tuple[tuple[str, bool], ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class Chain:
    """The hashes of one file, from the recipe to the measurements: name, value, remark."""

    name: str
    links: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class LatencyRow:
    """One measurement in words."""

    file: str
    device: str
    runtime: str
    threads: int
    runs: int
    median: Cell
    p90: Cell
    load: Cell
    memory: Cell
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Content:
    """Everything in the report."""

    title: str
    verdict: Verdict
    files: tuple[FileRow, ...]
    galleries: tuple[Gallery, ...]
    strips: tuple[Strips, ...]
    latencies: tuple[LatencyRow, ...]
    panels: tuple[Panel, ...]
    papers: tuple[PaperPoint, ...]
    checks: tuple[Check, ...]
    findings: tuple[tuple[str, str, str, str, str], ...]
    passes: tuple[PassTable, ...]
    metrics: tuple[Table, ...]
    comparisons: tuple[Table, ...]
    precisions: tuple[Table, ...]
    layers: tuple[Table, ...]
    checked_chains: tuple[Table, ...]
    runs: tuple[Table, ...]
    chains: tuple[Chain, ...]
    machines: tuple[tuple[tuple[str, str], ...], ...]
    warnings: tuple[tuple[str, str], ...]
    toolchain: tuple[tuple[str, str], ...]
    calls: tuple[Call, ...]
    records: tuple[tuple[str, str, bool], ...]
    left_out: tuple[LeftOut, ...]
    merged: tuple[str, ...]
    data: tuple[str, ...]

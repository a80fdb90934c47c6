"""Tables that stand where a record of their kind is in the folder: metrics, comparisons, precisions, layers, chains."""

from __future__ import annotations

from collections.abc import Iterator

from deploykit.attribution.records import Attribution
from deploykit.comparison_records import LatencyComparison
from deploykit.evaluation.records import Summary
from deploykit.evaluation.summary import METRICS
from deploykit.provenance.records import ManifestCheck
from deploykit.quantization_report import QuantizationReport
from deploykit.quantize.sensitivity import Sensitivity
from deploykit.records import Quantization
from deploykit.report_page import words
from deploykit.report_page.records import Matched, Scored
from deploykit.report_page.rows import Cell, Table
from deploykit.report_page.runs import Run

_TITLES = {one.name: one.title for one in METRICS}


def metric_tables(matched: Matched) -> Iterator[Table]:
    """Yield every metric of every file and checkpoint, network by network."""
    for network in matched.networks:
        scored = [(f"{network.recipe}, the checkpoint", one) for one in network.scores[:1]]
        scored += [(dossier.name, dossier.scores[0]) for dossier in network.dossiers if dossier.scores]
        names = [name for name in _TITLES if any(_summary(one, name) for _, one in scored)]
        if scored:
            columns = (("file", False), *((_TITLES[name], True) for name in names))
            rows = tuple((Cell(title), *(_metric(_summary(one, name)) for name in names)) for title, one in scored)
            data = ", ".join(dict.fromkeys(one.data for _, one in scored))
            note = "Second lines: difference to the checkpoint in points. Of flicker less is better."
            yield Table(f"Metrics of {network.recipe}", note, f"On {data}", columns, rows)


def _summary(scored: Scored, metric: str) -> Summary | None:
    return next((one for one in scored.evaluation.summaries if one.metric == metric), None)


def _metric(summary: Summary | None) -> Cell:
    if summary is None or summary.estimate is None:
        return Cell("undefined")
    gap = summary.difference
    return Cell(
        words.percent(summary.estimate.value), "" if gap is None else words.points(gap.value), summary.estimate.value
    )


def comparison_table(matched: Matched) -> Iterator[Table]:
    """Yield what ``deploykit compare`` found, one row a comparison."""
    found = [record.body for record in matched.of_kind("compare")]
    if found:
        columns = ("second against first", "device", "verdict", "ratio of times", "noise", "rounds")
        numeric = ("ratio of times", "noise", "rounds")
        yield Table(
            "Compared side by side",
            "A ratio of 1.05: the second takes 5 % more time. Noise: how far the first is from itself.",
            "Sessions made anew and interleaved in one run",
            tuple((name, name in numeric) for name in columns),
            tuple(map(_comparison, found)),
        )


def _comparison(one: LatencyComparison) -> tuple[Cell, ...]:
    judged, effect = one.judgement, one.judgement.effect
    ratio = Cell("not known", judged.reason)
    if effect is not None:
        level = f"{100 * judged.level:.3g} %: " if judged.level else ""
        ratio = Cell(f"{effect.ratio:.3f}", f"{level}{effect.low:.3f} to {effect.high:.3f}", effect.ratio)
    noise = judged.noise_floor
    return (
        Cell(f"{one.second.name} against {one.first.name}"),
        Cell(one.device),
        Cell(str(judged.verdict), "" if one.complete else "ended early"),
        ratio,
        Cell("not known") if noise is None else Cell(f"{100 * noise:.2f} %", value=noise),
        Cell(str(judged.rounds), value=judged.rounds),
    )


def precision_tables(matched: Matched) -> Iterator[Table]:
    """Yield every precision of a network, those that could not be made too, as the quantization report has them."""
    for record in matched.of_kind("quantization-report"):
        yield _precisions(record.body)


def _precisions(report: QuantizationReport) -> Table:
    columns = ("target, precision", "state", "size", "mIoU", "latency, median")
    rows = []
    for cell in report.cells:
        figures = cell.figures
        name = f"{cell.target} {cell.precision}" + (", a quantizer's defaults" if cell.defaults else "")
        size = miou = median = Cell("-")
        if figures is not None:
            size = Cell(words.size(figures.size_bytes), value=figures.size_bytes)
            if figures.miou is not None:
                miou = Cell(words.percent(figures.miou), value=figures.miou)
            median = Cell("not measured", figures.no_latency)
            if figures.latency is not None:
                seconds = figures.latency.median_s
                median = Cell(words.milliseconds(seconds), value=seconds)
        rows.append((Cell(name), Cell(str(cell.state), cell.reason), size, miou, median))
    return Table(
        f"Precisions of {report.recipe}",
        f"Of checkpoint {words.short_hash(report.checkpoint_sha256)}; these files need not be those of this folder.",
        f"On {report.held_out} held-out portraits",
        tuple((name, index > 1) for index, name in enumerate(columns)),
        tuple(rows),
    )


def layer_tables(matched: Matched) -> Iterator[Table]:
    """Yield what is known of the error by layer: attributions, layers left in float, and layers alone in integers."""
    for one in matched.dossiers:
        for verification in one.verifications:
            if verification.layers is not None:
                yield _attribution(one.name, verification.layers)
        if one.artifact.quantization is not None and one.artifact.quantization.kept:
            yield _kept(one.name, one.artifact.quantization)
    for record in matched.of_kind("sensitivity"):
        yield _sensitivity(record.body)


def _attribution(name: str, found: Attribution) -> Table:
    columns = ("module", "adds, relative L2", "rounding explains", "ratio to its bound", "verdict")
    rows = tuple(
        (
            Cell(row.module),
            _small(row.local_error),
            _small(row.explained),
            Cell("-") if row.ratio is None else Cell(f"{row.ratio:.2f}", value=row.ratio),
            Cell(row.verdict.value, row.cause.value if row.cause else ""),
        )
        for row in found.rows
    )
    return Table(
        f"{name}: which layer makes the error",
        found.sentence,
        f"{len(rows)} modules, worst first",
        tuple((column, 0 < index < 4) for index, column in enumerate(columns)),
        rows,
    )


def _small(value: float | None) -> Cell:
    return Cell("-") if value is None else Cell(words.scientific(value), value=value)


def _kept(name: str, made: Quantization) -> Table:
    rows = tuple(
        (Cell(layer.layer), Cell(f"{layer.alone_snr_db:.1f}", value=layer.alone_snr_db)) for layer in made.kept
    )
    return Table(
        f"{name}: layers left in float",
        f"Of {made.layers} layers {len(rows)} keep their activations in float.",
        "SNR of the outputs where this layer alone is in integers",
        (("layer", False), ("SNR, dB", True)),
        rows,
    )


def _sensitivity(found: Sensitivity) -> Table:
    columns = ("layer alone in integers", "simulated SNR, dB", "measured SNR, dB", "mIoU lost, points")
    rows = []
    for layer in found.layers:
        measured = layer.measured
        rows.append(
            (
                Cell(layer.layer),
                Cell(f"{layer.simulated_snr_db:.1f}", value=layer.simulated_snr_db),
                Cell("-") if measured is None else Cell(f"{measured.snr_db:.1f}", value=measured.snr_db),
                Cell("-") if measured is None else Cell(f"{measured.drop_points:.3f}", value=measured.drop_points),
            )
        )
    return Table(
        f"{found.recipe} {found.target} {found.precision}: what each layer costs",
        f"The file with every layer in integers loses {found.whole.drop_points:.3f} points of mIoU.",
        f"{len(rows)} layers, worst first",
        tuple((column, index > 0) for index, column in enumerate(columns)),
        tuple(rows),
    )


def chain_tables(matched: Matched) -> Iterator[Table]:
    """Yield what ``deploykit verify --manifest`` found of each link of a chain."""
    for record in matched.of_kind("verify-manifest"):
        yield _links(record.body)


def _links(check: ManifestCheck) -> Table:
    rows = tuple(
        (Cell(link.name), Cell(link.verdict.value), Cell(link.detail, "; ".join(link.findings))) for link in check.links
    )
    return Table(
        f"{check.artifact}: its chain, checked",
        "What was skipped was not at hand.",
        "From the checkpoint to the measurements",
        (("link", False), ("verdict", False), ("what", False)),
        rows,
    )


def run_tables(matched: Matched) -> Iterator[Table]:
    """Yield what became of each stage of the pipeline."""
    for record in matched.of_kind("pipeline"):
        yield _stages(record.path, record.body)


def _stages(path: str, run: Run) -> Table:
    return Table(
        f"Stages of the pipeline, from {path}",
        "What was skipped, by choice or since there is no such file, is no part of the verdict.",
        f"{len(run.stages)} stages",
        (("stage", False), ("state", False), ("reason", False)),
        tuple((Cell(one.stage), Cell(one.outcome.value), Cell(one.why)) for one in run.stages),
    )

"""What stands in the report, row by row, in words: made from records, and the same for the page and for Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from deploykit.artifact import MANIFEST
from deploykit.errors import DeploykitError
from deploykit.gate_records import GateVerdict
from deploykit.latency.subjects import timed_elsewhere
from deploykit.latency_records import Machine
from deploykit.recipe import recipe_from_table
from deploykit.records import Comparison, PassReport
from deploykit.report.gate_words import amount, bound, state, worst_first
from deploykit.report_page import words
from deploykit.report_page.calls import call_of
from deploykit.report_page.charts import panels, paper_points, strips
from deploykit.report_page.pictures import Gallery
from deploykit.report_page.records import Dossier, Matched, Network, Standing, Timed, Verdict
from deploykit.report_page.rows import (
    Cell,
    Chain,
    Check,
    Content,
    FileRow,
    LatencyRow,
    PassRow,
    PassTable,
)
from deploykit.report_page.tables import (
    chain_tables,
    comparison_table,
    layer_tables,
    metric_tables,
    precision_tables,
    run_tables,
)
from deploykit.report_page.verdict import MIOU, of_dossier


def content_of(matched: Matched, verdict: Verdict, galleries: tuple[Gallery, ...], folder: Path) -> Content:
    """Return the content of the report on ``matched``."""
    recipes = [network.recipe for network in matched.networks]
    return Content(
        title=", ".join(dict.fromkeys(recipes)) or folder.resolve().name,
        verdict=verdict,
        files=tuple(_files(matched)),
        galleries=galleries,
        strips=strips(matched),
        latencies=tuple(_latencies(matched)),
        panels=panels(matched),
        papers=paper_points(matched),
        checks=tuple(check for one in matched.dossiers for check in _checks(one)),
        findings=tuple(_findings(matched)),
        passes=tuple(_passes(matched)),
        metrics=tuple(metric_tables(matched)),
        comparisons=tuple(comparison_table(matched)),
        precisions=tuple(precision_tables(matched)),
        layers=tuple(layer_tables(matched)),
        checked_chains=tuple(chain_tables(matched)),
        runs=tuple(run_tables(matched)),
        chains=tuple(_chain(one) for one in matched.dossiers),
        machines=tuple(dict.fromkeys(words.machine_words(one) for one in _machines(matched))),
        warnings=tuple((one.problem, one.remedy) for one in matched.warnings),
        toolchain=_toolchain(matched),
        calls=tuple(call_of(one.name, one.artifact) for one in matched.dossiers),
        records=tuple((one.path, one.kind, one.sealed) for one in matched.records),
        left_out=matched.left_out,
        merged=tuple(dict.fromkeys(text for network in matched.networks for text in _merged(network))),
        data=tuple(dict.fromkeys(scored.data for one in matched.dossiers for scored in one.scores)),
    )


def _files(matched: Matched) -> Iterator[FileRow]:
    number = 0
    for network in matched.networks:
        for one in network.dossiers:
            number += 1
            plan = one.artifact.plan
            yield FileRow(
                number,
                one.name,
                network.recipe,
                plan.target.value,
                plan.precision.value,
                Cell(words.size(one.artifact.size_bytes), value=one.artifact.size_bytes),
                _latency(one),
                *_masks(one),
                _verified(one),
                _gate(one),
            )


def _latency(one: Dossier) -> Cell:
    if not one.latencies:
        elsewhere = timed_elsewhere(one.artifact.plan.target)
        return Cell("not measured here", elsewhere) if elsewhere else Cell("not measured")
    latency = one.latencies[0].latency
    threads = f"{latency.threads} thread{'' if latency.threads == 1 else 's'}"
    detail = f"{words.interval(*latency.interval_s)}; {threads}" if latency.interval_s else threads
    return _timed(one.latencies[0], detail)


def _timed(timed: Timed, detail: str) -> Cell:
    """Return the median, marked where it is noisy."""
    latency, noise = timed.latency, timed.noise
    text = words.milliseconds(latency.median_s) + (", noisy" if noise else "")
    return Cell(text, "; ".join(part for part in (detail, noise) if part), latency.median_s)


def _masks(one: Dossier) -> tuple[Cell, Cell]:
    missing = Cell("not measured")
    summary = next(
        (
            found
            for scored in one.scores
            for found in scored.evaluation.summaries
            if found.metric == MIOU and found.estimate is not None
        ),
        None,
    )
    if summary is None or summary.estimate is None:
        return missing, Cell("not measured")
    value = summary.estimate.value
    range_ = words.percent_interval(summary.estimate)
    miou = Cell(words.percent(value), f"{range_}; {summary.count} images" if range_ else "", value)
    if summary.difference is None:
        return miou, Cell("not measured", "no checkpoint beside it in the record")
    gap = summary.difference
    return miou, Cell(words.points(gap.value), words.point_interval(gap), gap.value)


def _verified(one: Dossier) -> Cell:
    standing = of_dossier(one)
    if one.entry.changed:
        gone = "the file is missing" if one.entry.missing else "not the file that was exported"
        return Cell("FAIL", gone, 0, standing=Standing.FAIL)
    if standing is Standing.FAIL:
        return Cell("FAIL", "see Verification", 0, standing=standing)
    if standing is Standing.OPEN:
        return Cell("open", "never compared", 1, standing=standing)
    worst = max(comparison.relative_l2 for comparison in one.artifact.comparisons)
    when = "at export and again" if one.verifications else "at export"
    return Cell("pass", f"{when}; relative L2 {words.scientific(worst)}", 2, standing=standing)


def _gate(one: Dossier) -> Cell:
    if not one.gated:
        return Cell("not run", value=1, standing=Standing.OPEN)
    own = [found for found in one.findings if not found.advice]
    failed = [found for found in own if found.fails or found.verdict is GateVerdict.FAIL]
    if failed:
        return Cell("FAIL", ", ".join(found.rule for found in failed), 0, standing=Standing.FAIL)
    unclear = [found for found in own if found.verdict is not GateVerdict.PASS]
    if unclear:
        detail = ", ".join(f"{found.rule} {found.verdict}" for found in unclear)
        return Cell("open", detail, 1, standing=Standing.OPEN)
    return Cell("pass", f"{len(own)} rules", 2, standing=Standing.PASS)


def _latencies(matched: Matched) -> Iterator[LatencyRow]:
    for network in matched.networks:
        for one in network.dossiers:
            yield from (_latency_row(one.name, timed) for timed in one.latencies)
        yield from (_latency_row(timed.latency.artifact, timed) for timed in network.eager)


def _latency_row(name: str, timed: Timed) -> LatencyRow:
    latency, startup = timed.latency, timed.latency.startup
    load = startup.warm_load_s if startup else None
    memory = startup.peak_memory_bytes if startup else None
    detail = words.interval(*latency.interval_s) if latency.interval_s else ""
    return LatencyRow(
        name,
        latency.device,
        latency.runtime,
        latency.threads,
        len(latency.samples_s),
        _timed(timed, detail),
        Cell(words.milliseconds(latency.p90_s), value=latency.p90_s),
        Cell("not measured") if load is None else Cell(words.milliseconds(load), value=load),
        Cell("not measured") if memory is None else Cell(words.size(memory), value=memory),
        (*(("whole photo to composite",) if latency.steps else ()), *latency.notes),
    )


def _checks(one: Dossier) -> Iterator[Check]:
    for comparison in one.artifact.comparisons:
        yield _check(one.name, "export", one.artifact.runtime, comparison)
    for verification in one.verifications:
        for runtime in verification.runtimes:
            for output in runtime.outputs:
                yield _check(one.name, "verify", runtime.runtime, output.comparison)


def _check(name: str, when: str, runtime: str, found: Comparison) -> Check:
    standing = Standing.PASS if found.passed else Standing.FAIL
    return Check(
        name,
        when,
        found.output,
        runtime,
        found.max_abs_error,
        found.relative_l2,
        found.snr_db,
        found.mask_agreement,
        found.wrong_pixels,
        standing,
        found.failures,
    )


def _findings(matched: Matched) -> Iterator[tuple[str, str, str, str, str]]:
    """Yield the gate's findings as verdict, file, rule, figures and reason, what needs attention first."""
    here = {one.artifact.content_hash for one in matched.dossiers if one.gated}
    for record in matched.of_kind("gate"):
        stale = {one.name for one in record.body.subjects if one.content_hash not in here}
        for one in worst_first(record.body):
            if one.subject not in stale:
                figures = "" if one.measured is None else f"{amount(one.measured, one.unit)}, {bound(one)}"
                yield state(one), one.subject, one.rule, figures, one.reason


def _passes(matched: Matched) -> Iterator[PassTable]:
    for network in matched.networks:
        if network.verification is not None:
            title = f"{network.recipe}: folding and merging, as verify-reparam saw it"
            yield PassTable(title, tuple(_pass_rows(network.verification.passes)))
        for one in network.dossiers:
            yield PassTable(one.name, tuple(_pass_rows(one.artifact.passes)))


def _pass_rows(passes: tuple[PassReport, ...]) -> Iterator[PassRow]:
    for one in passes:
        details = tuple(f"{', '.join(fired.modules)}: {fired.detail}" for fired in one.fired)
        yield PassRow(one.name, len(one.fired), details, tuple(one.reasons().items()))


def _chain(one: Dossier) -> Chain:
    artifact, entry = one.artifact, one.entry
    links = [
        ("recipe", artifact.recipe_sha256, artifact.recipe),
        ("checkpoint", artifact.checkpoint_sha256, ""),
        ("plan", artifact.plan.digest(), entry.manifest.parent.name),
    ]
    if artifact.certificate is not None:
        faults = "; ".join(entry.certificate_faults)
        links.append(("certificate", artifact.certificate.sha256, f"FAIL: {faults}" if faults else entry.certificate))
    changed, missing = set(entry.changed), set(entry.missing)
    for file in artifact.files:
        state = "FAIL: missing" if file.path in missing else "FAIL: changed" if file.path in changed else "unchanged"
        links.append((f"file {file.path}", file.sha256, f"{words.size(file.size_bytes)}, {state}"))
    extra = sorted(changed - {file.path for file in artifact.files})
    links += [(f"file {path}", "", "FAIL: not in the manifest") for path in extra]
    links.append(("content", artifact.content_hash, "operations and weights"))
    links += [("measurement", file.sha256, file.path) for file in artifact.measurements]
    state = f"FAIL: changed {', '.join(entry.broken[:4])}" if entry.broken else "unchanged"
    links.append(("manifest", entry.seal, state))
    return Chain(one.name, tuple(links))


def _machines(matched: Matched) -> Iterator[Machine]:
    for network in matched.networks:
        for timed in (*(timed for one in network.dossiers for timed in one.latencies), *network.eager):
            if timed.machine is not None:
                yield timed.machine


def _merged(network: Network) -> Iterator[str]:
    """Yield which classes are the portrait where there are three or more: masks and mIoU know two."""
    for one in network.dossiers:
        try:
            outputs = recipe_from_table(one.artifact.recipe_table, one.artifact.path.parent / MANIFEST).file.outputs
        except DeploykitError:
            continue
        classes = next((output.classes for output in outputs if len(output.classes) > 1), ())
        if len(classes) > 2:
            rest = f"{', '.join(classes[1:-1])} and {classes[-1]}"
            yield (
                f"{network.recipe} tells {len(classes)} classes apart. Here {rest} are merged into the portrait, and "
                f"{classes[0]} alone is the background: in masks, in mIoU and in what follows from it."
            )


def _toolchain(matched: Matched) -> tuple[tuple[str, str], ...]:
    found: dict[str, list[str]] = {}
    for one in matched.dossiers:
        for name, version in one.artifact.toolchain.items():
            known = found.setdefault(name, [])
            if version not in known:
                known.append(str(version))
    for record in matched.of_kind("diagnosis"):
        body = record.body
        found.setdefault("python", []).append(body.python)
        found.setdefault("system (doctor)", []).append(body.system)
    return tuple((name, ", ".join(versions)) for name, versions in sorted(found.items()))

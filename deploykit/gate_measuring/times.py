"""Latency, loading and memory of files on this machine, as ``bench`` measures them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from deploykit.benchmark import bench
from deploykit.errors import DeploykitError
from deploykit.gate_measuring.subjects import Gated
from deploykit.gate_records import MEASURED_BY_BENCH, Measure, Measurement
from deploykit.latency_records import Latency

Figures = dict[Measure, Measurement]


def measure_times(gated: Sequence[Gated], say: Callable[[str], None], *, max_seconds: float) -> dict[str, Figures]:
    """Return, by name, what ``bench`` says of each file; where it measures none of them, why."""
    try:
        run = bench([one.artifact.path for one in gated], max_seconds=max_seconds, startup=True, report=say)
    except DeploykitError as error:
        why = Measurement(None, f"{error.message} {error.found or ''}".strip())
        return {one.subject.name: dict.fromkeys(MEASURED_BY_BENCH, why) for one in gated}
    device = run.machine.name if run.machine else ""
    measured = {one.content_hash: one for one in run.measured}
    skipped = "; ".join(f"{one.artifact}: {one.reason}" for one in run.skipped)
    return {
        one.subject.name: _figures(measured.get(one.artifact.content_hash), device, skipped or run.ended)
        for one in gated
    }


def _figures(latency: Latency | None, device: str, why_not: str) -> Figures:
    if latency is None:
        return dict.fromkeys(MEASURED_BY_BENCH, Measurement(None, why_not or "bench did not measure it"))
    started = latency.startup
    loaded, peak = (started.warm_load_s, started.peak_memory_bytes) if started else (None, None)
    unknown = "this driver does not measure it"
    return {
        Measure.LATENCY: Measurement(latency.median_s, interval=latency.interval_s, device=device),
        Measure.LOAD: Measurement(loaded, "" if loaded is not None else unknown, device=device),
        Measure.PEAK_MEMORY: Measurement(peak, "" if peak is not None else unknown, device=device),
    }


def lower_of(first: Mapping[Measure, Measurement], second: Mapping[Measure, Measurement]) -> Figures:
    """Return the lower of two measurements of each figure: noise makes times longer, never shorter."""
    found = dict(first)
    for measure, again in second.items():
        before = first.get(measure)
        if again.value is not None and (before is None or before.value is None or again.value < before.value):
            found[measure] = again
    return found

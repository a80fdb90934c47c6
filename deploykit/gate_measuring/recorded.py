"""Latencies of machines that the gate cannot run on, such as a phone's browser: from saved runs of ``bench``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from deploykit.gate_records import Budget, Measure, Measurement, Observed
from deploykit.latency_records import Latency
from deploykit.results.store import SavedRun, read_runs


def with_recorded(observed: Sequence[Observed], budgets: Sequence[Budget], folder: Path) -> list[Observed]:
    """Return ``observed`` with the newest saved latency of each machine that a limit on latency is for.

    A run counts where it was measured to its end on the very content that is judged. Of several rows of one run the
    one with the fewest threads counts, and of several accelerators the slowest one.

    Raises ArtifactError for a saved run that is damaged.
    """
    named = {device for one in budgets if one.measure is Measure.LATENCY for device in one.devices}
    if not named:
        return list(observed)
    saved = read_runs(folder)
    if saved.damaged:
        raise saved.damaged[0]
    runs = [run for run in saved.runs if run.complete and run.machine in named]
    return [replace(one, recorded=_newest(one.subject.content_hash, runs)) for one in observed]


def _newest(content_hash: str, runs: Sequence[SavedRun]) -> tuple[Measurement, ...]:
    found: dict[str, Measurement] = {}
    # Oldest first.
    for run in runs:
        rows = [one for one in run.measured if one.content_hash == content_hash]
        if rows:
            found[run.machine] = _measurement(min(rows, key=lambda one: (one.threads, -one.median_s)), run)
    return tuple(found.values())


def _measurement(latency: Latency, run: SavedRun) -> Measurement:
    where = f"saved {run.started[:10]} on {run.machine}, {latency.driver} {latency.accelerator}"
    return Measurement(latency.median_s, where, latency.interval_s, run.machine)

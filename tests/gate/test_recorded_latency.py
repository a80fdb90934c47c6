"""What the gate takes from saved runs: the newest one of the same content, measured to its end, of a named machine."""

from __future__ import annotations

from dataclasses import replace

import pytest
from gate_cases import budget, observed
from web.web_case import ABOUT, CHECKED, END, HELLO, OPENED, STOPPED, WARM, samples, small_plan

from deploykit.gate_measuring.recorded import with_recorded
from deploykit.gate_records import Measure
from deploykit.latency_records import Benchmark
from deploykit.results.store import save_run
from deploykit.web.events import Batch
from deploykit.web.runs import BrowserRun

PHONE = "linux-2-cores-chromium-156-0"
BOUND = budget(Measure.LATENCY, 0.01, devices=(PHONE,))


def browser_run(seconds: float, started: str, content: str, *, complete: bool = True) -> Benchmark:
    """A run of the page on a phone, as it comes back to the command."""
    run = BrowserRun(small_plan(None), None, started=started)
    several = [{**one, **ABOUT, "threads": 2} for one in (OPENED, CHECKED, WARM, samples(seconds / 2), STOPPED)]
    events = [HELLO, OPENED, CHECKED, WARM, samples(seconds, seconds), STOPPED, *several, *([END] if complete else [])]
    run.hear(Batch.model_validate({"events": events}))
    result = run.benchmark()
    return replace(result, measured=tuple(replace(one, content_hash=content) for one in result.measured))


@pytest.mark.parametrize("budgets", [(BOUND,), ()])
def test_the_newest_whole_run_of_the_same_content_counts(budgets, tmp_path) -> None:
    now = observed({})
    content = now.subject.content_hash
    save_run(browser_run(0.02, "2026-01-01T00:00:00+00:00", content), tmp_path)
    save_run(browser_run(0.03, "2026-01-02T00:00:00+00:00", content), tmp_path)
    save_run(browser_run(0.04, "2026-01-03T00:00:00+00:00", content, complete=False), tmp_path)
    save_run(browser_run(0.05, "2026-01-04T00:00:00+00:00", "another content"), tmp_path)
    (found,) = with_recorded([now], budgets, tmp_path)
    if not budgets:
        assert found.recorded == ()
        return
    (latency,) = found.recorded
    assert (latency.value, latency.device) == (0.03, PHONE)
    assert latency.reason == f"saved 2026-01-02 on {PHONE}, browser wasm"


def test_no_saved_run_is_no_figure(tmp_path) -> None:
    (found,) = with_recorded([observed({})], [BOUND], tmp_path / "none")
    assert found.recorded == ()

"""What a page reports becomes an ordinary record, whose figures follow from the samples alone."""

from __future__ import annotations

import numpy as np
import pytest
from web_case import ABOUT, CHECKED, END, HELLO, NAME, OPENED, STOPPED, WARM, samples, small_plan

from deploykit.latency.agent.median import interval_of_median
from deploykit.latency_records import Stopped
from deploykit.results.store import read_runs, save_run
from deploykit.vocab import Target
from deploykit.web.events import Batch
from deploykit.web.runs import BrowserRun, RefusedError


def heard(*events: dict, precision_target: float | None = 0.02) -> BrowserRun:
    run = BrowserRun(small_plan(precision_target), precision_target)
    run.hear(Batch.model_validate({"events": list(events)}))
    return run


def blocks(count: int, spread: float) -> list[list[float]]:
    rng = np.random.default_rng(1)
    return [list(0.01 + spread * rng.random(5)) for _ in range(count)]


def test_a_whole_benchmark_is_a_record_like_any_other(tmp_path) -> None:
    given = blocks(20, 1e-5)
    run = heard(HELLO, OPENED, CHECKED, WARM, *(samples(*one) for one in given), STOPPED, END)
    result = run.benchmark()
    (latency,) = result.measured
    assert (latency.artifact, latency.driver, latency.accelerator) == (NAME, "browser", "wasm")
    assert (latency.threads, latency.target, latency.warmup_runs) == (1, Target.TFLITE, 40)
    assert latency.samples_s == tuple(run for block in given for run in block)
    assert latency.starts_s[0] == pytest.approx(1.0)
    assert latency.interval_s == interval_of_median(given)
    assert latency.stopped is Stopped.PRECISION
    assert latency.startup is not None
    assert latency.startup.warm_load_s == 0.125
    assert result.complete
    assert result.machine is not None
    assert "Chromium 156.0" in result.machine.system
    assert [one.reason for one in result.skipped] == ["not measured: the page left it out"]
    saved = save_run(result, tmp_path)
    (again,) = read_runs(tmp_path).runs
    assert again.path == saved
    assert again.measured == (latency,)


def test_the_page_is_not_believed_that_it_was_precise() -> None:
    run = heard(HELLO, OPENED, CHECKED, WARM, *(samples(*one) for one in blocks(20, 0.05)), STOPPED, END)
    assert run.benchmark().measured[0].stopped is Stopped.TIME


def test_an_interrupted_benchmark_keeps_what_it_measured() -> None:
    run = heard(HELLO, OPENED, CHECKED, WARM, samples(0.01, 0.02))
    result = run.benchmark()
    assert not result.complete
    assert result.ended == "interrupted"
    (latency,) = result.measured
    assert latency.samples_s == (0.01, 0.02)
    assert latency.stopped is Stopped.INTERRUPTED
    run.end_early("the page said nothing for 180 s")
    assert run.benchmark().ended == "the page said nothing for 180 s"
    with pytest.raises(RefusedError, match="ended"):
        run.hear(Batch.model_validate({"events": [samples(0.01)]}))


def test_of_a_batch_with_one_wrong_event_nothing_is_kept() -> None:
    run = heard(HELLO, OPENED, CHECKED, WARM)
    with pytest.raises(RefusedError):
        run.hear(Batch.model_validate({"events": [samples(0.01), {**samples(0.01), "subject": "other"}]}))
    assert run.samples == 0
    assert not run.benchmark().measured


def test_what_is_to_be_known_is_noted() -> None:
    opened = {**OPENED, "accelerator": "wasm", "ran": "webgpu", "notes": ["WebGPU computes some operations"]}
    checked = {**CHECKED, "levels": 9.0}
    warm = {**WARM, "repeats": 12, "granularity_s": 1e-4}
    slower = [samples(*[0.01] * 15), samples(*[0.011] * 30)]
    (latency,) = heard(HELLO, opened, checked, warm, *slower, STOPPED, END).benchmark().measured
    assert latency.accelerator == "webgpu"
    text = " ".join(latency.notes)
    for part in ("WebGPU computes some", "webgpu computed", "9.0 of 256 levels", "mean of 12", "100 µs"):
        assert part in text
    warnings = heard(HELLO, OPENED, CHECKED, WARM, *slower, STOPPED, END).benchmark().warnings
    (warned,) = (one for one in warnings if "10% longer than in the first" in one.problem)
    assert "cool" in warned.remedy
    quicker = heard(HELLO, OPENED, CHECKED, WARM, samples(*[0.011] * 30), samples(*[0.01] * 15), STOPPED, END)
    (warned,) = (one for one in quicker.benchmark().warnings if "9% shorter" in one.problem)
    assert "cool" not in warned.remedy
    steady = heard(HELLO, OPENED, CHECKED, WARM, samples(*[0.01] * 45), STOPPED, END).benchmark()
    assert not steady.warnings
    assert not steady.measured[0].notes


def test_a_battery_is_warned_of() -> None:
    condition = {"event": "conditions", "time_s": 1000.5, "battery_percent": 50, "on_battery": True}
    result = heard(HELLO, condition, OPENED, CHECKED, WARM, samples(0.01)).benchmark()
    assert any("battery" in one.problem for one in result.warnings)
    assert result.conditions[0].time_s == pytest.approx(0.5)


def test_a_failure_is_skipped_with_its_reason() -> None:
    problem = {"event": "problem", **ABOUT, "phase": "opening", "message": "no WebGPU here"}
    assert heard(HELLO, problem, END).benchmark().skipped[0].reason == "no WebGPU here"

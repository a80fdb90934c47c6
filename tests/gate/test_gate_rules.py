"""Every rule of the gate, each with what passes and its negative twin."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from gate_cases import COUNTS, NAME, REASON, baseline, budget, found, observed

from deploykit.gate.rules import asleep, wanted
from deploykit.gate_records import (
    COUNTED,
    MASKS,
    Agreement,
    GateVerdict,
    LatencyTrial,
    Measure,
    Measurement,
)
from deploykit.vocab import Precision, Target

PASS, FAIL, INCONCLUSIVE, SKIPPED = GateVerdict.PASS, GateVerdict.FAIL, GateVerdict.INCONCLUSIVE, GateVerdict.SKIPPED


@pytest.mark.parametrize("measure", [*COUNTED, *MASKS, Measure.PEAK_MEMORY, Measure.NEURAL_ENGINE])
def test_a_limit_is_kept_at_the_limit_and_exceeded_just_beyond_it(measure: Measure) -> None:
    at, beyond = observed({measure: 1000}), observed({measure: 1001})
    assert found(at, budget(measure, 1000))[measure].verdict is PASS
    failed = found(beyond, budget(measure, 1000))[measure]
    assert failed.verdict is FAIL
    assert (failed.measured, failed.limit, failed.excess) == (1001, 1000, 1)
    assert failed.unit
    assert failed.reason == REASON
    assert failed.command == f"measure {measure}"
    assert failed.subject == NAME


@pytest.mark.parametrize("measure", COUNTED)
def test_growth_is_kept_up_to_its_share_and_exceeded_beyond(measure: Measure) -> None:
    was = COUNTS[measure]
    limit = math.floor(was * 1.5)
    rule = f"{measure} growth"
    bound = budget(measure, max_growth=0.5)
    assert found(observed({measure: limit}), bound, before=baseline())[rule].verdict is PASS
    failed = found(observed({measure: limit + 1}), bound, before=baseline())[rule]
    assert failed.verdict is FAIL
    assert failed.limit == was * 1.5
    assert failed.excess == limit + 1 - was * 1.5
    assert f"on {was:,} in the baseline" in failed.reason


def test_one_transpose_more_than_none_is_growth() -> None:
    before = baseline(figures={Measure.TRANSPOSES: 0})
    bound = budget(Measure.TRANSPOSES, max_growth=0.0)
    rule = "transposes growth"
    assert found(observed({Measure.TRANSPOSES: 0}), bound, before=before)[rule].verdict is PASS
    assert found(observed({Measure.TRANSPOSES: 1}), bound, before=before)[rule].verdict is FAIL


def test_a_limit_and_a_growth_of_one_budget_are_two_findings() -> None:
    both = budget(Measure.BYTES, 200_000, max_growth=0.02)
    findings = found(observed({Measure.BYTES: 103_000}), both, before=baseline())
    assert findings["bytes"].verdict is PASS
    assert findings["bytes growth"].verdict is FAIL
    assert "+3.00%" in findings["bytes growth"].reason


def test_growth_without_a_baseline_is_skipped_and_says_what_to_do() -> None:
    bound = budget(Measure.BYTES, max_growth=0.02)
    none = found(observed(), bound)["bytes growth"]
    new = found(observed(), bound, before=baseline(name="another"))["bytes growth"]
    without = found(observed(), bound, before=baseline(figures={}))["bytes growth"]
    assert {none.verdict, new.verdict, without.verdict} == {SKIPPED}
    assert "no baseline yet" in none.reason
    assert "does not have this artifact" in new.reason
    assert "--update-baseline" in new.reason
    assert "has no bytes" in without.reason


def test_what_was_not_measured_is_skipped_with_the_reason() -> None:
    missing = observed({Measure.MACS: Measurement(None, "the file names an operation that cannot be counted")})
    finding = found(missing, budget(Measure.MACS, 5))["macs"]
    assert finding.verdict is SKIPPED
    assert "cannot be counted" in finding.reason
    assert found(observed(), budget(Measure.LOAD, 1))["load_s"].verdict is SKIPPED


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_fails(value: float) -> None:
    finding = found(observed({Measure.MIOU_LOST: value}), budget(Measure.MIOU_LOST, 1))[Measure.MIOU_LOST]
    assert finding.verdict is FAIL
    assert finding.measured is None
    assert "not a finite number" in finding.reason


def test_times_are_judged_on_named_machines_only() -> None:
    slow = Measurement(0.02, interval=(0.019, 0.021), device="phone-a")
    bound = budget(Measure.LATENCY, 0.01, devices=("phone-a",))
    assert found(observed({Measure.LATENCY: slow}), bound)["latency_s"].verdict is FAIL
    elsewhere = found(observed({Measure.LATENCY: replace(slow, device="laptop")}), bound)["latency_s"]
    assert elsewhere.verdict is SKIPPED
    assert "for phone-a, and this machine is laptop" in elsewhere.reason


def test_a_limit_for_another_machine_is_held_against_a_run_that_was_saved_there() -> None:
    bound = budget(Measure.LATENCY, 0.01, devices=("phone-a", "phone-b"))
    here = observed({Measure.LATENCY: Measurement(0.5, interval=(0.4, 0.6), device="laptop")})
    quick = Measurement(0.005, "saved 2026-01-02 on phone-a", (0.004, 0.006), "phone-a")
    slow = Measurement(0.02, "saved 2026-01-02 on phone-b", (0.019, 0.021), "phone-b")
    other = replace(slow, device="phone-c")
    assert found(replace(here, recorded=(quick, other)), bound)["latency_s"].verdict is PASS
    assert found(replace(here, recorded=(other,)), bound)["latency_s"].verdict is SKIPPED
    failed = found(replace(here, recorded=(quick, slow)), bound)["latency_s"]
    assert failed.verdict is FAIL
    assert failed.reason.endswith("saved 2026-01-02 on phone-b")
    assert failed.command == "deploykit results --machine phone-b"
    # What is measured here counts before what was saved of this machine.
    own = budget(Measure.LATENCY, 0.01, devices=("laptop",))
    assert found(replace(here, recorded=(replace(quick, device="laptop"),)), own)["latency_s"].verdict is FAIL


@pytest.mark.parametrize(
    ("interval", "verdict"), [((0.008, 0.01), PASS), ((0.009, 0.012), INCONCLUSIVE), ((0.0101, 0.012), FAIL)]
)
def test_a_time_passes_and_fails_with_its_whole_interval(interval: tuple[float, float], verdict: GateVerdict) -> None:
    time = Measurement(0.0105, interval=interval, device="here")
    finding = found(observed({Measure.LATENCY: time}), budget(Measure.LATENCY, 0.01, devices=("here",)))["latency_s"]
    assert finding.verdict is verdict


def test_growth_in_latency_is_what_its_trial_says() -> None:
    trial = LatencyTrial(FAIL, "measured twice, slower both times", 1.15, (1.12, 1.18), 0.99, 2, "before.onnx")
    bound = budget(Measure.LATENCY, max_growth=0.05)
    finding = found(observed(trials={0.05: trial}), bound, before=baseline())["latency growth"]
    assert finding.verdict is FAIL
    assert finding.measured == 1.15
    assert finding.limit == 1.05
    assert finding.excess == pytest.approx(0.10)
    assert found(observed(), bound)["latency growth"].verdict is SKIPPED
    assert found(observed(trials={0.1: trial}), bound, before=baseline())["latency growth"].verdict is SKIPPED


def test_a_changed_file_fails_and_nothing_else_is_said_of_it() -> None:
    whole = found(observed(), budget(Measure.BYTES, 1))
    changed = found(observed(changed=("small.onnx",)), budget(Measure.BYTES, 1))
    assert whole["hash"].verdict is PASS
    assert list(changed) == ["hash"]
    assert changed["hash"].verdict is FAIL
    assert "small.onnx" in changed["hash"].reason


@pytest.mark.parametrize(
    ("measured", "limit", "at_least", "verdict"),
    [
        (1e-4, 1e-4, False, PASS),
        (1.1e-4, 1e-4, False, FAIL),
        (0.999, 0.999, True, PASS),
        (0.998, 0.999, True, FAIL),
        (math.nan, 1e-4, False, FAIL),
        (math.nan, 0.99, True, FAIL),
    ],
)
def test_tolerances_bound_from_their_side(measured: float, limit: float, at_least: bool, verdict: GateVerdict) -> None:
    one = Agreement("scores", "bound", measured, limit, REASON, at_least)
    finding = found(observed(agreements=(one,)))["equivalence"]
    assert finding.verdict is verdict
    assert finding.excess is None or (finding.excess > 0) is (verdict is FAIL)
    assert ("at least" in finding.unit) is at_least


def test_a_broken_output_fails_and_an_unverified_file_is_skipped() -> None:
    broken = found(observed(agreements=(), broken=("scores: constant",)))["equivalence"]
    assert (broken.verdict, broken.reason) == (FAIL, "scores: constant")
    unverified = found(observed(agreements=None, unverified="the checkpoint is not here"))["equivalence"]
    assert (unverified.verdict, unverified.reason) == (SKIPPED, "the checkpoint is not here")


def test_advice_of_the_neural_engine_passes_without_a_budget() -> None:
    advised = observed({Measure.NEURAL_ENGINE: 2}, advice=("gather: seen to run on the CPU",))
    assert found(advised)["neural engine"].advice
    assert found(advised)["neural engine"].verdict is PASS
    assert found(advised, budget(Measure.NEURAL_ENGINE, 1))[Measure.NEURAL_ENGINE].verdict is FAIL
    assert "neural engine" not in found(observed())


@pytest.mark.parametrize(
    ("selectors", "holds"),
    [
        ({}, True),
        ({"targets": (Target.ONNX, Target.TFLITE)}, True),
        ({"targets": (Target.TFLITE,)}, False),
        ({"precisions": (Precision.FP32,)}, True),
        ({"precisions": (Precision.INT8,)}, False),
        ({"recipes": ("small",)}, True),
        ({"recipes": ("sinet",)}, False),
        ({"targets": (Target.ONNX,), "precisions": (Precision.INT8,)}, False),
    ],
)
def test_selectors_choose_and_a_budget_that_meets_nothing_is_reported(selectors: dict, holds: bool) -> None:
    bound = replace(budget(Measure.BYTES, 5), source="small.toml", **selectors)
    assert ("bytes" in found(observed(), bound)) is holds
    sleeping = asleep([observed()], [bound], None)
    assert len(sleeping) == (0 if holds else 1)
    assert all(one.verdict is SKIPPED and "small.toml" in one.reason for one in sleeping)


def test_a_run_without_budgets_or_without_an_artifact_of_the_baseline_says_so() -> None:
    (none,) = asleep([observed()], [], None)
    assert none.verdict is SKIPPED
    assert "no budget" in none.reason
    (gone,) = asleep([observed()], [budget(Measure.BYTES, 5)], baseline(name="another"))
    assert (gone.rule, gone.subject, gone.verdict) == ("baseline", "another", SKIPPED)


def test_only_what_a_budget_limits_is_measured() -> None:
    bounds = [budget(Measure.LOAD, 1), budget(Measure.LATENCY, max_growth=0.05), budget(Measure.MIOU_LOST, 1)]
    elsewhere = replace(budget(Measure.PEAK_MEMORY, 1), targets=(Target.COREML,))
    assert wanted(observed(), [*bounds, elsewhere]) == {*COUNTED, Measure.LOAD, Measure.MIOU_LOST}

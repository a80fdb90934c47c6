"""What this machine can never measure is named and keeps no verdict open, unless a budget asks for it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from report_cases import PROJECT, rewrite, write_record

from deploykit import api
from deploykit.benchmark import bench
from deploykit.evaluation.evaluate import Options
from deploykit.gate_measuring.run import GateOptions, run_gate
from deploykit.report_page import Standing, write_report
from deploykit.report_page.records import ReportSummary

pytestmark = pytest.mark.skipif(sys.platform == "darwin", reason="Core ML is timed on macOS")

NOTE = "The latency of chain coreml fp32 is not measured here: Core ML needs macOS"
BUDGET = """
[[budgets]]
measure = "latency_s"
limit = 10.0
devices = ["this-machine"]
reason = "the user waits for it"
targets = ["coreml"]
"""


def judged(folder: Path, budgets: str, *, strict: bool) -> ReportSummary:
    """Run the gate on everything in ``folder`` with ``budgets``, and write the page."""
    place = folder.parent
    (place / "deploykit.toml").write_text(PROJECT + budgets)
    found = run_gate(
        GateOptions(
            paths=(folder,),
            recipes=(str(place / "chain.toml"),),
            samples=2,
            clips=1,
            strict=strict,
            folder=place,
            max_seconds=0.01,
        )
    )
    write_record(folder / "gate.json", "gate", found)
    return write_report(folder, folder / "r.html", markdown=folder / "r.md", pictures=False)


def test_a_core_ml_file_has_no_latency_here_and_passes_without_one(folder):
    recipe = folder.parent / "chain.toml"
    (package,) = api.export(recipe, targets=["coreml"], output_dir=folder)
    (other,) = folder.glob("chain/onnx-*/*.onnx")
    scores = api.evaluate(api.load(recipe), package, options=Options(samples=1, clips=0))
    write_record(folder / "scores.json", "evaluate", scores)
    times = bench([other, package.path], runs=5, seconds=0.01, precision_target=None, startup=False)
    assert [one.elsewhere for one in times.skipped] == [True]
    write_record(folder / "chain" / "records" / "bench.json", "bench", times)

    passed = judged(folder, "", strict=True)
    assert passed.standing is Standing.PASS
    assert passed.sentence.startswith("Ready: 2 files agree")
    assert NOTE in passed.sentence
    assert passed.notes[0].startswith(NOTE)
    for page in ("r.html", "r.md"):
        text = (folder / page).read_text("utf-8")
        assert text.count(NOTE) == 1
        assert "not measured here" in text.replace(NOTE, "")
    assert "Nothing was skipped" not in (folder / "r.html").read_text("utf-8")

    gate = (folder / "gate.json").read_bytes()
    asked = judged(folder, BUDGET, strict=False)
    assert asked.standing is Standing.OPEN
    assert "the gate's rule latency_s is skipped for chain coreml fp32" in asked.sentence
    for page in ("r.html", "r.md"):
        assert NOTE in (folder / page).read_text("utf-8")

    # What went wrong, or could be mended, is no such thing.
    (folder / "gate.json").write_bytes(gate)
    rewrite(folder / "chain" / "records" / "bench.json", skipped=[{"artifact": "chain.mlpackage", "reason": "lost"}])
    again = write_report(folder, folder / "r.html", pictures=False)
    assert again.standing is Standing.OPEN
    assert "chain.mlpackage was not measured (lost)" in again.sentence

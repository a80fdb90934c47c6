"""The verdict passes where everything was judged, and nowhere else."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from report_cases import change_a_byte, read_body, rewrite

from deploykit.report_page import Standing
from deploykit.report_page.matching import match
from deploykit.report_page.reading import collect
from deploykit.report_page.records import Left, Matched, Verdict
from deploykit.report_page.verdict import judge

RECORDS = Path("chain") / "records"


def seen(folder: Path) -> tuple[Matched, Verdict]:
    matched = match(collect(folder))
    return matched, judge(matched, folder)


def test_a_file_that_was_judged_in_every_way_passes(folder):
    matched, verdict = seen(folder)
    assert verdict.reasons == ()
    assert verdict.standing is Standing.PASS
    assert verdict.sentence.startswith("Ready: 1 file agrees")
    (dossier,) = matched.dossiers
    assert dossier.name == "chain onnx fp32"
    assert len(dossier.latencies[0].latency.samples_s) >= 5
    assert dossier.gated
    assert len(matched.records) == 5
    assert matched.left_out == ()


@pytest.mark.parametrize(
    ("missing", "words", "command"),
    [
        (RECORDS / "verify-reparam.json", "folding and merging of chain was not verified", "deploykit verify-reparam"),
        (RECORDS / "evaluate.json", "mIoU of chain onnx fp32 is not measured", "deploykit evaluate"),
        (RECORDS / "bench.json", "latency of chain onnx fp32 is not measured", "deploykit bench"),
        (Path("gate.json"), "no gate judged chain onnx fp32", "deploykit gate"),
    ],
)
def test_what_is_missing_keeps_the_verdict_open_and_says_its_command(folder, missing, words, command):
    (folder / missing).unlink()
    _, verdict = seen(folder)
    assert verdict.standing is Standing.OPEN
    (reason,) = verdict.reasons
    assert reason.text == words
    assert reason.command.startswith(command)
    assert "--json >" in reason.command
    assert words in verdict.sentence


def test_nothing_but_the_file_is_open_not_green(folder):
    shutil.rmtree(folder / RECORDS)
    (folder / "gate.json").unlink()
    _, verdict = seen(folder)
    assert verdict.standing is Standing.OPEN
    assert len(verdict.reasons) == 4


def test_a_changed_file_fails_and_its_records_are_stale(folder):
    change_a_byte(folder)
    matched, verdict = seen(folder)
    assert verdict.standing is Standing.FAIL
    assert "is not the file that was exported" in verdict.sentence
    (dossier,) = matched.dossiers
    assert dossier.latencies == dossier.scores == dossier.verifications == ()
    stale = {one.path for one in matched.left_out if one.why is Left.STALE}
    assert {"chain/records/bench.json", "chain/records/verify.json", "gate.json"} <= stale
    assert all("changed since it was exported" in one.reason for one in matched.left_out)


def test_a_damaged_manifest_fails(folder):
    (manifest,) = folder.glob("chain/onnx-*/manifest.json")
    manifest.write_text("{", "utf-8")
    _, verdict = seen(folder)
    assert verdict.standing is Standing.FAIL
    assert "cannot be read" in verdict.sentence


def test_a_manifest_whose_seal_is_broken_fails(folder):
    (manifest,) = folder.glob("chain/onnx-*/manifest.json")
    record = json.loads(manifest.read_text("utf-8"))
    record["body"]["comparisons"][0]["relative_l2"] = 0.0
    manifest.write_text(json.dumps(record), "utf-8")
    _, verdict = seen(folder)
    assert verdict.standing is Standing.FAIL
    assert "manifest of chain onnx fp32 was changed" in verdict.sentence


def test_a_record_of_another_file_is_stale_and_counts_for_nothing(folder):
    path = folder / RECORDS / "bench.json"
    path.write_text(re.sub(r'"content_hash": "[0-9a-f]{64}"', f'"content_hash": "{"0" * 64}"', path.read_text("utf-8")))
    matched, verdict = seen(folder)
    assert verdict.standing is Standing.OPEN
    assert matched.dossiers[0].latencies == ()
    (left,) = matched.left_out
    assert (left.path, left.why) == ("chain/records/bench.json", Left.STALE)
    assert "000000000000" in left.reason


def test_records_of_another_checkpoint_are_stale(folder):
    path = folder / RECORDS / "verify-reparam.json"
    path.write_text(
        re.sub(r'"checkpoint_sha256": "[0-9a-f]{64}"', f'"checkpoint_sha256": "{"1" * 64}"', path.read_text())
    )
    matched, verdict = seen(folder)
    assert verdict.standing is Standing.OPEN
    assert [one.why for one in matched.left_out] == [Left.STALE]


@pytest.mark.parametrize(
    ("verdict", "fails", "expected"),
    [("skipped", False, "open"), ("inconclusive", False, "open"), ("skipped", True, "fail"), ("fail", True, "fail")],
)
def test_what_the_gate_left_open_or_failed_is_no_pass(folder, verdict, fails, expected):
    findings = read_body(folder / "gate.json")["findings"]
    findings[0].update(verdict=verdict, fails=fails, reason="no camera here")
    rewrite(folder / "gate.json", findings=findings)
    _, found = seen(folder)
    assert found.standing == expected
    assert "no camera here" in found.sentence


def test_advice_of_the_gate_is_no_reason(folder):
    findings = read_body(folder / "gate.json")["findings"]
    findings.append({**findings[0], "verdict": "fail", "advice": True, "fails": False})
    rewrite(folder / "gate.json", findings=findings)
    assert seen(folder)[1].standing is Standing.PASS


def test_a_gate_that_does_not_name_its_files_counts_for_nothing(folder):
    rewrite(folder / "gate.json", subjects=[])
    matched, verdict = seen(folder)
    assert verdict.standing is Standing.OPEN
    assert not matched.dossiers[0].gated


def test_a_failed_verification_fails(folder):
    rewrite(folder / RECORDS / "verify.json", findings=["the masks differ"])
    _, verdict = seen(folder)
    assert verdict.standing is Standing.FAIL
    assert "the masks differ" in verdict.sentence


def test_a_skipped_measurement_keeps_the_verdict_open(folder):
    rewrite(folder / RECORDS / "bench.json", skipped=[{"artifact": "x.mlpackage", "reason": "needs macOS"}])
    _, verdict = seen(folder)
    assert verdict.standing is Standing.OPEN
    assert "x.mlpackage was not measured (needs macOS)" in verdict.sentence

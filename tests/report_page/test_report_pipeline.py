"""What the pipeline says of its run, and what it wrote: a failed stage or an edited record is never green."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from report_cases import read_body, rewrite, write_record

from deploykit.errors import ArtifactError, UsageError
from deploykit.report_page import Standing, write_report
from deploykit.report_page.matching import match
from deploykit.report_page.reading import collect
from deploykit.report_page.records import Left, Verdict
from deploykit.report_page.verdict import judge

EVALUATED = "chain/records/evaluate.json"


def stage(name: str, outcome: str, reason: str = "") -> dict[str, Any]:
    recipe, _, kind = name.rpartition("/")
    return {
        "stage": name,
        "kind": kind,
        "recipe": recipe,
        "target": None,
        "precision": None,
        "outcome": outcome,
        "reason": reason,
        "because": "never done",
        "seconds": 1.0,
        "cpu_seconds": 1.0,
        "exit_code": 0,
        "outputs": [],
    }


def verdict_with(folder: Path, *stages: dict[str, Any]) -> Verdict:
    body = {"output_dir": "artifacts", "stages": stages, "seconds": 3.0, "notes": [], "passed": False}
    write_record(folder / "pipeline.json", "pipeline", body)
    matched = match(collect(folder))
    assert matched.left_out == ()
    return judge(matched, folder)


def seal(folder: Path, path: str) -> None:
    digest = hashlib.sha256((folder / path).read_bytes()).hexdigest()
    outputs = [{"path": path, "sha256": digest, "size_bytes": 1}]
    write_record(folder / ".pipeline/results/chain/evaluate.json", "pipeline-stage", {"outputs": outputs})


def test_a_run_that_passed_or_skipped_by_choice_changes_nothing(folder):
    skipped = stage("chain/export", "skipped", "Core AI has no int8")
    assert verdict_with(folder, stage("chain/verify-reparam", "done"), skipped).standing is Standing.PASS
    write_report(folder, folder / "r.html", pictures=False)
    text = (folder / "r.html").read_text("utf-8")
    assert "Stages of the pipeline" in text
    assert "Core AI has no int8" in text


def test_a_failed_stage_is_not_ready_and_names_what_was_not_made(folder):
    found = verdict_with(folder, stage("bad/verify-reparam", "failed", "error 0.3\nmore"))
    assert found.standing is Standing.FAIL
    assert found.sentence == "Not ready: bad: verify-reparam failed, no file was made (error 0.3)."
    found = verdict_with(folder, stage("chain/verify", "failed", "no"))
    assert found.sentence == "Not ready: chain: verify failed (no)."


@pytest.mark.parametrize(
    ("outcome", "words"), [("not run", "chain: bench was not run (bad)"), ("interrupted", "chain: bench was interrupt")]
)
def test_what_was_not_run_or_interrupted_is_open(folder, outcome, words):
    found = verdict_with(folder, stage("chain/bench", outcome, "bad"), stage("report", "failed"))
    assert found.standing is Standing.OPEN
    assert words in found.sentence


def test_a_run_that_made_no_file_is_still_a_report(folder, tmp_path):
    shutil.rmtree(folder / "chain")
    (folder / "gate.json").unlink()
    with pytest.raises(ArtifactError):
        collect(folder)
    verdict_with(folder, stage("bad/verify-reparam", "failed"))
    summary = write_report(folder, tmp_path / "r.html", markdown=tmp_path / "r.md")
    assert summary.standing is Standing.FAIL
    assert "bad: verify-reparam failed, no file was made" in summary.sentence


def test_a_state_that_no_pipeline_has_is_a_damaged_record(folder):
    with pytest.raises(AssertionError):
        verdict_with(folder, stage("chain/verify", "fine"))
    (left,) = collect(folder).left_out
    assert left.why is Left.UNREADABLE
    assert "outcome" in left.reason


def test_a_gate_without_a_budget_is_no_pass(folder):
    findings = [one for one in read_body(folder / "gate.json")["findings"] if one["rule"] in ("hash", "equivalence")]
    rewrite(folder / "gate.json", findings=findings)
    verdict = judge(match(collect(folder)), folder)
    (reason,) = verdict.reasons
    assert verdict.standing is Standing.OPEN
    assert "no budget on size, latency or accuracy is set for chain onnx fp32" in verdict.sentence
    assert reason.command.startswith("deploykit gate")


def test_a_record_as_the_pipeline_wrote_it_counts_and_an_edited_one_does_not(folder, tmp_path):
    seal(folder, EVALUATED)
    matched = match(collect(folder))
    assert [one.path for one in matched.records if one.sealed] == [EVALUATED]
    assert judge(matched, folder).standing is Standing.PASS
    record = json.loads((folder / EVALUATED).read_text("utf-8"))
    record["body"]["evaluations"][1]["summaries"][0]["estimate"]["value"] = 0.999
    (folder / EVALUATED).write_text(json.dumps(record), "utf-8")
    matched = match(collect(folder))
    assert [(one.path, one.why) for one in matched.left_out] == [(EVALUATED, Left.CHANGED)]
    assert matched.dossiers[0].scores == ()
    verdict = judge(matched, folder)
    assert verdict.standing is Standing.OPEN
    assert any("not the record of kind evaluate that the pipeline wrote" in one.text for one in verdict.reasons)


def test_the_page_says_that_records_without_a_seal_are_taken_as_they_stand(folder):
    (folder / ".pipeline/results").mkdir(parents=True)
    (folder / ".pipeline/results/broken.json").write_text("{", "utf-8")
    write_report(folder, folder / "r.html", pictures=False)
    assert "Records without a seal" in (folder / "r.html").read_text("utf-8")


def test_a_deleted_file_is_missing_and_a_changed_one_changed(folder):
    (model,) = folder.glob("chain/*/*.onnx")
    model.unlink()
    verdict = judge(match(collect(folder)), folder)
    assert "chain.onnx is missing)" in verdict.sentence
    assert "changed" not in verdict.sentence
    write_report(folder, folder / "r.html", pictures=False)
    assert "FAIL: missing" in (folder / "r.html").read_text("utf-8")


def test_page_and_note_in_one_file_are_refused(folder, tmp_path):
    with pytest.raises(UsageError, match="cannot be one file"):
        write_report(folder, tmp_path / "r", markdown=folder / ".." / "r", pictures=False)


def test_a_file_instead_of_a_folder_is_told_its_folder(folder):
    with pytest.raises(ArtifactError) as error:
        collect(folder / "gate.json")
    assert error.value.next_step == f"name its folder: deploykit report {folder}"

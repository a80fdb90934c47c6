"""A real pipeline on a tiny network: what it leaves behind, what it does again and why, what a failure stops."""

from __future__ import annotations

import json
import shutil

import pytest
from stages.conftest import Ear
from stages.tiny_case import write_tiny

from deploykit.artifact import find_artifacts, read_artifact, require_unchanged
from deploykit.errors import ArtifactError, CheckpointError, TargetError, UsageError
from deploykit.evaluation.evaluate import Options, evaluate
from deploykit.provenance.check import check_manifest
from deploykit.provenance.measurements import keep_measurements
from deploykit.stages.keys import contents_of
from deploykit.stages.lock import locked
from deploykit.stages.records import Outcome, StageKind
from deploykit.stages.run import run_pipeline
from deploykit.stages.store import Store
from deploykit.vocab import Precision, Target

PAGES = ("report.html", "pipeline.json")
FP32 = (Precision.FP32,)
PASSED = ["tiny/verify-reparam", "tiny/export/onnx-fp32", "tiny/verify/onnx-fp32", "tiny/evaluate/onnx-fp32"]


def by_outcome(run, outcome):
    return [one.stage for one in run.stages if one.outcome is outcome]


def test_artifacts_and_records_lie_where_the_other_commands_look(finished):
    (artifact,) = find_artifacts(finished.folder)
    require_unchanged(artifact)
    assert artifact.path.parent == finished.folder / "tiny" / artifact.plan.folder()
    assert check_manifest(artifact.path.parent / "manifest.json", recipe=finished.recipe).passed
    records = {path.stem: json.loads(path.read_bytes()) for path in (finished.folder / "tiny" / "records").iterdir()}
    assert {name: record["kind"] for name, record in records.items()} == {
        "verify-reparam": "verify-reparam",
        "verify-onnx-fp32": "verify",
        "evaluate-onnx-fp32": "evaluate",
    }
    assert records["verify-onnx-fp32"]["body"]["passed"] is True
    network, file = records["evaluate-onnx-fp32"]["body"]["evaluations"]
    assert file["content_hash"] == artifact.content_hash
    assert len(network["images"]) == 2
    assert not list((finished.folder / ".pipeline" / "work").glob("[!t]*"))


def test_a_failure_stops_what_needs_it_and_nothing_else(finished):
    run = finished.run
    assert by_outcome(run, Outcome.DONE) == PASSED
    (failed,) = (one for one in run.stages if one.outcome is Outcome.FAILED)
    assert failed.stage == "tiny/export/onnx-fp16"
    assert failed.exit_code == 1 == run.exit_code
    assert "no file in half precision is as exact" in failed.reason
    stopped = {one.stage: one.reason for one in run.stages if one.outcome is Outcome.NOT_RUN}
    assert stopped == dict.fromkeys(
        ("tiny/verify/onnx-fp16", "tiny/evaluate/onnx-fp16"), "tiny/export/onnx-fp16 failed"
    )
    reasons = {one.stage: one.reason for one in run.stages if one.outcome is Outcome.SKIPPED}
    assert reasons == {
        "tiny/bench": "--skip bench",
        "gate": "no budgets in the recipe or in deploykit.toml",
        "report": "--skip report",
    }
    assert finished.ear.begun["tiny/export/onnx-fp32"] == "never done"


def test_nothing_is_done_twice_wherever_the_folder_lies(finished, copied):
    ear = Ear()
    # A page of deploykit report is as good as it was where nothing is done.
    (copied / "report.html").write_text("a page")
    run = run_pipeline([finished.recipe], finished.options(copied, precisions=FP32), ear)
    assert by_outcome(run, Outcome.UP_TO_DATE) == PASSED
    assert run.passed
    assert not ear.begun
    assert run.stages[0].cpu_seconds == finished.run.stages[0].cpu_seconds
    assert (copied / "report.html").read_text() == "a page"


@pytest.mark.usefixtures("inside")
def test_what_was_changed_or_removed_is_made_again_and_said(finished, copied):
    (before,) = find_artifacts(copied)
    before.path.write_bytes(before.path.read_bytes()[:-1] + b"!")
    (copied / "tiny" / "records" / "evaluate-onnx-fp32.json").unlink()
    ear = Ear()
    run = run_pipeline([finished.recipe], finished.options(copied, precisions=FP32), ear)
    name = before.path.relative_to(copied).as_posix()
    assert ear.begun == {
        "tiny/export/onnx-fp32": f"{name} was changed",
        "tiny/evaluate/onnx-fp32": "tiny/records/evaluate-onnx-fp32.json is missing",
    }
    assert by_outcome(run, Outcome.DONE) == list(ear.begun)
    # The same bytes again: what the others were made from did not change.
    assert by_outcome(run, Outcome.UP_TO_DATE) == ["tiny/verify-reparam", "tiny/verify/onnx-fp32"]
    assert require_unchanged(read_artifact(before.path)).files == before.files


def test_measurements_that_are_kept_later_change_nothing(finished, copied):
    (artifact,) = find_artifacts(copied)
    (kept,) = keep_measurements([artifact], evaluate(artifact, options=Options(samples=1, clips=0)))
    assert kept.measurements
    run = run_pipeline([finished.recipe], finished.options(copied, precisions=FP32), Ear())
    assert by_outcome(run, Outcome.UP_TO_DATE) == PASSED


@pytest.mark.usefixtures("inside")
def test_the_page_on_the_folder_is_made_again_where_anything_in_it_changed(finished, copied):
    options = finished.options(copied, precisions=FP32, skip=frozenset({StageKind.BENCH}))
    run = run_pipeline([finished.recipe], options, Ear())
    assert by_outcome(run, Outcome.DONE) == ["report"]
    assert run.stages[-1].reason
    assert b"tiny" in (copied / "report.html").read_bytes()
    again = run_pipeline([finished.recipe], options, Ear())
    assert again.stages[-1].outcome is Outcome.UP_TO_DATE
    assert again.stages[-1].reason == run.stages[-1].reason
    before = contents_of(copied, but=PAGES)
    (copied / ".hidden.json").write_text("{}")
    assert contents_of(copied, but=PAGES) == before
    (copied / "more.json").write_text("{}")
    assert contents_of(copied, but=PAGES) != before
    (copied / "more.json").unlink()
    # Without the stage: what is done again with the same result leaves the page, what comes to something else does not.
    (copied / ".pipeline" / "results" / "tiny" / "verify-reparam.json").unlink()
    for changes, kept in (({}, True), ({"samples": 1}, False)):
        without = finished.options(copied, precisions=FP32, **changes)
        run = run_pipeline([finished.recipe], without, Ear())
        assert len(by_outcome(run, Outcome.DONE)) == 1
        assert (copied / "report.html").exists() is kept
        assert bool(run.notes) is not kept


@pytest.mark.usefixtures("inside")
def test_a_run_in_which_nothing_is_made_leaves_nothing_of_an_earlier_one(finished, copied):
    skip = frozenset({StageKind.BENCH})
    (copied / "report.html").write_text("Ready")
    records = [copied / "tiny" / "records" / f"{name}-onnx-fp16.json" for name in ("verify", "evaluate")]
    for path in records:
        path.write_text("of a file of an earlier run")
    precisions = (Precision.FP16,)
    with_another = run_pipeline([finished.recipe], finished.options(copied, precisions=precisions, skip=skip), Ear())
    # The file in fp32 of the run before is there: the page is on that, and the record says what failed.
    assert by_outcome(with_another, Outcome.FAILED) == ["tiny/export/onnx-fp16"]
    assert with_another.stages[-1].outcome is Outcome.DONE
    record = json.loads((copied / "pipeline.json").read_bytes())
    assert (record["kind"], record["body"]["exit_code"], record["body"]["passed"]) == ("pipeline", 1, False)
    assert {one["stage"]: one["outcome"] for one in record["body"]["stages"]} == {
        one.stage: one.outcome for one in with_another.stages
    }
    # What is of the file that could not be made is gone with it, what is of the other one stays.
    assert not any(path.exists() for path in records)
    assert {note.split()[1] for note in with_another.notes} == {one.relative_to(copied).as_posix() for one in records}
    assert record["body"]["notes"] == list(with_another.notes)
    assert (copied / "tiny" / "records" / "verify-onnx-fp32.json").exists()
    shutil.rmtree(copied / "tiny")
    alone = run_pipeline([finished.recipe], finished.options(copied, precisions=precisions, skip=skip), Ear())
    assert (alone.stages[-1].outcome, alone.stages[-1].reason) == (Outcome.NOT_RUN, "there is no artifact of tiny")
    assert not (copied / "report.html").exists()
    assert alone.notes == ("removed report.html of an earlier run: it is not of what there is now",)


BUDGETS = """
recipe = "{recipe}"

[[budgets]]
measure = "bytes"
limit = {limit}
reason = "what this test allows"
"""


@pytest.mark.parametrize(
    ("limit", "outcome"), [(1, Outcome.FAILED), pytest.param(10**6, Outcome.DONE, marks=pytest.mark.full)]
)
@pytest.mark.usefixtures("inside")
def test_the_gate_judges_what_was_made_by_the_budgets_of_now(finished, copied, monkeypatch, limit, outcome):
    monkeypatch.chdir(copied.parent)
    monkeypatch.delenv("CI", raising=False)
    options = finished.options(copied, precisions=FP32)
    text = BUDGETS.format(recipe=finished.recipe.as_posix(), limit=limit)
    (copied.parent / "deploykit.toml").write_text(text, "utf-8")
    run = run_pipeline([], options, Ear())
    (gate,) = (one for one in run.stages if one.kind is StageKind.GATE)
    assert (gate.outcome, gate.because) == (outcome, "never done")
    assert run.exit_code == gate.exit_code == int(outcome is Outcome.FAILED)
    record = json.loads((copied / "gate.json").read_bytes())
    assert record["kind"] == "gate"
    assert record["body"]["passed"] is (outcome is Outcome.DONE)
    if outcome is Outcome.FAILED:
        assert "at most 1 bytes" in gate.reason
        assert "bytes of tiny" in gate.details[0]
        assert any(line.startswith("  again: deploykit") for line in gate.details)
    if outcome is Outcome.DONE:
        again = Ear()
        assert run_pipeline([], options, again).passed
        assert not again.begun


@pytest.mark.parametrize(
    ("skipped", "samples", "again"),
    [((), 2, False), pytest.param((StageKind.EVALUATE,), 32, True, marks=pytest.mark.full)],
)
def test_the_gate_takes_what_was_verified_and_evaluated_before(
    finished, copied, tmp_path, monkeypatch, skipped, samples, again
):
    text = BUDGETS.format(recipe=finished.recipe.as_posix(), limit=100).replace("bytes", "miou_points_lost")
    (tmp_path / "deploykit.toml").write_text(text, "utf-8")
    monkeypatch.delenv("CI", raising=False)
    ear = Ear()
    skip = frozenset({StageKind.BENCH, StageKind.REPORT, *skipped})
    options = finished.options(copied, precisions=FP32, clips=1, skip=skip)
    run = run_pipeline([finished.recipe], options, ear)
    assert run.passed
    assert ear.begun["gate"] == "never done"
    said = [text for name, text in zip(ear.said_by, ear.texts, strict=True) if name == "gate"]
    assert not any(text.startswith("verifying") for text in said)
    assert any(text.startswith("evaluating") for text in said) is again
    findings = json.loads((copied / "gate.json").read_bytes())["body"]["findings"]
    (lost,) = (one for one in findings if one["rule"] == "miou_points_lost")
    assert f"--samples {samples} " in lost["command"]
    if not again:
        _, file = json.loads((copied / "tiny/records/evaluate-onnx-fp32.json").read_bytes())["body"]["evaluations"]
        (miou,) = (one for one in file["summaries"] if one["metric"] == "two_class_miou")
        assert lost["measured"] == pytest.approx(-100 * miou["difference"]["value"])


def test_what_a_killed_run_left_is_no_artifact_and_goes(finished, copied):
    (artifact,) = find_artifacts(copied)
    half = copied / ".pipeline" / "work" / "abc" / "tiny" / artifact.path.parent.name
    shutil.copytree(artifact.path.parent, half)
    assert find_artifacts(copied) == (artifact,)
    run = run_pipeline([finished.recipe], finished.options(copied, precisions=FP32), Ear())
    assert not half.exists()
    assert run.notes == ("removed what a run before this one left half-done: 1 item",)
    assert by_outcome(run, Outcome.UP_TO_DATE) == PASSED


def test_a_damaged_result_counts_as_none(copied):
    store = Store(copied)
    path = copied / ".pipeline" / "results" / "tiny" / "verify-reparam.json"
    whole = path.read_bytes()
    assert store.read("tiny/verify-reparam") is not None
    for damaged in (b"", whole[: len(whole) // 2], b"[]", whole.replace(b"pipeline-stage", b"another-kind")):
        path.write_bytes(damaged)
        assert store.read("tiny/verify-reparam") is None


def test_two_pipelines_do_not_share_a_folder(finished, copied):
    lock = copied / ".pipeline" / "lock"
    with locked(lock, copied), pytest.raises(ArtifactError, match="Another pipeline works in this folder"):
        run_pipeline([finished.recipe], finished.options(copied), Ear())
    # The text of a process that is gone keeps nobody out.
    lock.write_text("123456789\n")
    with locked(lock, copied):
        assert lock.read_text() != "123456789\n"


def test_what_cannot_be_is_refused_before_anything_is_done(finished, tmp_path):
    for error, names, changes, said in (
        (UsageError, [finished.recipe, write_tiny(tmp_path / "other")], {}, "same name"),
        (UsageError, [finished.recipe], {"max_seconds": -1.0}, "out of range"),
        (CheckpointError, [finished.recipe], {"checkpoint": tmp_path / "no.pt"}, "no trained weights"),
        (UsageError, [finished.recipe, "sinet"], {"checkpoint": finished.recipe}, "one recipe"),
    ):
        with pytest.raises(error, match=said):
            run_pipeline(names, finished.options(tmp_path / "new", **changes), Ear())
    impossible = {"targets": (Target.ONNX,), "precisions": (Precision.PALETTE4,)}
    with pytest.raises(TargetError, match="has no palette4 files"):
        run_pipeline([finished.recipe], finished.options(tmp_path / "new", **impossible), Ear())
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_made_is_an_error_of_the_user(tmp_path):
    (tmp_path / ".pipeline").write_text("no folder")
    with pytest.raises(ArtifactError, match="cannot be written"), locked(tmp_path / ".pipeline" / "lock", tmp_path):
        pass

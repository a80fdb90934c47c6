"""The command on a real small file: a project that keeps its budgets, and regressions that are planted in it.

Only where time is judged does a record stand for what would be measured.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from gate.gate_cases import comparison, judgement
from onnx import helper, numpy_helper

from deploykit.artifact import hash_files, hash_items, read_artifact, write_manifest
from deploykit.comparison_records import LatencyComparison, Verdict
from deploykit.gate_measuring import latency, run
from deploykit.gate_measuring.subjects import Gated
from deploykit.gate_records import Measure, Measurement
from deploykit.targets.onnx.export import content_items

PROJECT = """
recipe = "small/small.toml"

[[budgets]]
measure = "bytes"
limit = 20_000
max_growth = 0.02
reason = "fits beside the app's own code"

[[budgets]]
measure = "compressed_bytes"
max_growth = 0.02
reason = "what a phone downloads"

[[budgets]]
measure = "transposes"
max_growth = 0.0
reason = "each of them moves every value once more"

[[budgets]]
measure = "operations"
max_growth = 0.0
reason = "each of them is called once more"

[[budgets]]
measure = "macs"
limit = 500_000
reason = "half of what the old phone manages"

[[budgets]]
measure = "miou_points_lost"
limit = 0.5
reason = "half a point is what reviewers see"
"""
LATENCY = """
[[budgets]]
measure = "latency_s"
max_growth = 0.05
reason = "frames must keep up with the camera"
"""
COUNTS = tuple(
    one for rule in ("bytes", "compressed_bytes", "transposes", "operations", "macs") for one in ("--only", rule)
)
FAST = ("--samples", "2", "--clips", "1")


@pytest.fixture
def project(small: Path, small_onnx: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with budgets in the current folder; the file of its one artifact."""
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    (here / "deploykit.toml").write_text(PROJECT, "utf-8")
    shutil.copytree(small_onnx, here / "artifacts" / small_onnx.name)
    return here / "artifacts" / small_onnx.name / "small.onnx"


@pytest.fixture
def accepted(project: Path, deploykit: Callable) -> Path:
    """The same with a baseline."""
    assert deploykit("gate", "--update-baseline", "--yes").code == 0
    return project


def as_new_export(path: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    """Change the model at ``path``, and its manifest as if it had been exported like that."""
    model = onnx.load(path)
    change(model)
    path.write_bytes(model.SerializeToString(deterministic=True))
    artifact = read_artifact(path)
    files = hash_files(path)
    content = hash_items(content_items(path))
    write_manifest(replace(artifact, files=files, size_bytes=files[0].size_bytes, content_hash=content), path.parent)


def failing(result: object) -> set[str]:
    assert result.code == 1, result.err
    assert "Traceback" not in result.err
    return {one["rule"] for one in json.loads(result.out)["body"]["findings"] if one["fails"]}


def grow(model: onnx.ModelProto) -> None:
    size = len(model.SerializeToString())
    # Random text, which no compression makes smaller again.
    text = bytes(np.random.default_rng(0).integers(33, 127, int(0.03 * size) + 1, dtype=np.uint8)).decode()
    model.metadata_props.add(key="more", value=text)


def put_a_transpose_in(model: onnx.ModelProto) -> None:
    output = model.graph.output[0]
    for node in model.graph.node:
        for index, name in enumerate(node.output):
            if name == output.name:
                node.output[index] = "before_transpose"
    model.graph.node.append(helper.make_node("Transpose", ["before_transpose"], [output.name], perm=[0, 1, 2, 3]))


def move_the_classes(model: onnx.ModelProto) -> None:
    """Let one class win nearly everywhere: a score is added to it at the end."""
    output = model.graph.output[0]
    for node in model.graph.node:
        for index, name in enumerate(node.output):
            if name == output.name:
                node.output[index] = "before_bias"
    bias = numpy_helper.from_array(np.array([1000, 0], np.float32).reshape(1, 2, 1, 1), "late_bias")
    model.graph.initializer.append(bias)
    model.graph.node.append(helper.make_node("Add", ["before_bias", "late_bias"], [output.name]))


def test_a_project_that_keeps_its_budgets_passes_in_every_form(accepted: Path, deploykit: Callable, here: Path) -> None:
    result = deploykit("gate", *FAST, "--strict", "--json", "--junit", "j.xml", "--summary", "s.md")
    assert result.code == 0, result.err
    body = json.loads(result.out)["body"]
    rules = [one["rule"] for one in body["findings"]]
    assert body["passed"]
    assert body["baseline"] == "gate-baseline.json"
    assert {one["verdict"] for one in body["findings"]} == {"pass"}
    assert set(rules) == {
        "hash",
        "equivalence",
        "bytes",
        "bytes growth",
        "compressed_bytes growth",
        "transposes growth",
        "operations growth",
        "macs",
        "miou_points_lost",
    }
    assert all(one["command"].startswith("deploykit ") for one in body["findings"])
    assert str(here) not in result.out
    assert len(ElementTree.parse(here / "j.xml").findall(".//testcase")) == len(rules)
    assert "The gate passed" in (here / "s.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("change", "rules"),
    [
        (grow, {"bytes growth", "compressed_bytes growth"}),
        (put_a_transpose_in, {"transposes growth", "operations growth"}),
    ],
)
def test_a_planted_regression_in_counts_fails_by_its_rule(
    accepted: Path, deploykit: Callable, change: Callable, rules: set[str]
) -> None:
    as_new_export(accepted, change)
    found = failing(deploykit("gate", *COUNTS, "--json"))
    assert found - {"bytes growth"} == rules - {"bytes growth"}
    assert rules <= found


def turn_align_corners(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "coordinate_transformation_mode" and attribute.s == b"align_corners":
                attribute.s = b"half_pixel"


def test_a_changed_align_corners_is_not_equivalent(accepted: Path, deploykit: Callable) -> None:
    as_new_export(accepted, turn_align_corners)
    result = deploykit("gate", "--only", "equivalence", *COUNTS, "--json")
    assert failing(result) == {"equivalence"}
    bounds = {one["unit"] for one in json.loads(result.out)["body"]["findings"] if one["fails"]}
    assert {"max_abs_error", "relative_l2"} <= bounds


def test_lost_masks_fail_by_their_rule_and_as_not_equivalent(accepted: Path, deploykit: Callable) -> None:
    as_new_export(accepted, move_the_classes)
    only = ("--only", "miou_points_lost", "--only", "equivalence")
    found = failing(deploykit("gate", *FAST, *only, "--json"))
    assert found == {"miou_points_lost", "equivalence"}


def test_a_changed_weight_byte_is_an_error_of_the_hash_alone(accepted: Path, deploykit: Callable) -> None:
    raw = bytearray(accepted.read_bytes())
    raw[len(raw) // 2] ^= 1
    accepted.write_bytes(raw)
    result = deploykit("gate", "--json")
    assert failing(result) == {"hash"}
    assert "small.onnx" in json.loads(result.out)["body"]["findings"][0]["reason"]
    refused = deploykit("gate", "--update-baseline", "--yes")
    assert refused.code == 2
    assert "cannot become the baseline" in refused.err


def test_a_manifest_that_was_changed_by_hand_is_found(accepted: Path, deploykit: Callable) -> None:
    manifest = accepted.parent / "manifest.json"
    manifest.write_text(manifest.read_text("utf-8").replace('"opset": 18', '"opset": 17'), "utf-8")
    result = deploykit("gate", "--only", "hash", "--json")
    assert failing(result) == {"hash"}
    assert "plan.opset" in result.out


def test_strict_fails_on_what_is_skipped_and_ci_is_strict(
    project: Path, deploykit: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    loose = deploykit("gate", *COUNTS)
    assert loose.code == 0
    assert "there is no baseline yet" in loose.out
    assert failing(deploykit("gate", *COUNTS, "--strict", "--json")) >= {"bytes growth", "transposes growth"}
    monkeypatch.setenv("CI", "true")
    assert deploykit("gate", *COUNTS).code == 1
    assert deploykit("gate", *COUNTS, "--no-strict").code == 0
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    assert "::error title=deploykit gate%3A bytes growth" in deploykit("gate", *COUNTS).err


def test_an_update_shows_the_difference_and_writes_only_when_agreed(
    accepted: Path, deploykit: Callable, here: Path
) -> None:
    before = (here / "gate-baseline.json").read_bytes()
    again = deploykit("gate", "--update-baseline")
    assert (again.code, again.out) == (0, "")
    assert "up to date" in again.err
    as_new_export(accepted, grow)
    asked = deploykit("gate", "--update-baseline")
    assert asked.code == 2
    assert "nobody to ask" in asked.err
    assert "compressed_bytes" in asked.out
    assert (here / "gate-baseline.json").read_bytes() == before
    agreed = deploykit("gate", "--update-baseline", "--yes")
    assert agreed.code == 0
    assert (here / "gate-baseline.json").read_bytes() != before
    assert deploykit("gate", *COUNTS).code == 0


def slower_by(ratio: float, asked: list[tuple[str, str, float]]) -> Callable[..., LatencyComparison]:
    """Stand in for the measurement of two files: the second takes ``ratio`` times as long."""

    def compare(first: str, second: str, *, margin: float, error: float, **others: object) -> LatencyComparison:
        asked.append((first, second, error))
        verdict = Verdict.SLOWER if ratio > 1 + margin else Verdict.SAME
        return comparison(judgement(verdict, ratio, margin=margin))

    return compare


@pytest.mark.parametrize(("ratio", "code"), [(1.15, 1), (1.0, 0)])
def test_latency_is_that_beside_the_baselines_file_measured_twice_before_it_fails(
    project: Path, deploykit: Callable, here: Path, monkeypatch: pytest.MonkeyPatch, ratio: float, code: int
) -> None:
    (here / "deploykit.toml").write_text('recipe = "small/small.toml"\n' + LATENCY, "utf-8")
    assert deploykit("gate", "--update-baseline", "--yes").code == 0
    content = read_artifact(project).content_hash
    asked: list[tuple[str, str, float]] = []
    monkeypatch.setattr(latency, "compare", slower_by(ratio, asked))
    same = deploykit("gate", "--only", "latency_s", "--json")
    assert same.code == 0
    assert "has the content of the baseline's file" in same.out
    assert not asked
    as_new_export(project, put_a_transpose_in)
    result = deploykit("gate", "--only", "latency_s", "--json")
    assert result.code == code
    assert len(asked) == (2 if code else 1)
    assert asked[0] == (
        f".deploykit/baseline/{content}/small.onnx",
        f"artifacts/{project.parent.name}/small.onnx",
        0.01,
    )
    (found,) = (one for one in json.loads(result.out)["body"]["findings"] if one["rule"] == "latency growth")
    assert found["command"].startswith(f"deploykit compare .deploykit/baseline/{content}/small.onnx artifacts/")
    assert found["measured"] == ratio


def test_the_baselines_file_is_made_again_where_the_cache_is_gone_and_another_is_refused(
    project: Path, deploykit: Callable, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "deploykit.toml").write_text('recipe = "small/small.toml"\n' + LATENCY, "utf-8")
    assert deploykit("gate", "--update-baseline", "--yes").code == 0
    cached = here / ".deploykit" / "baseline" / read_artifact(project).content_hash
    first = (cached / "small.onnx").read_bytes()
    shutil.rmtree(here / ".deploykit")
    as_new_export(project, put_a_transpose_in)
    monkeypatch.setattr(latency, "compare", slower_by(1.0, []))
    result = deploykit("gate", "--only", "latency_s", "--json")
    assert result.code == 0
    assert '"skipped"' not in result.out
    assert (cached / "small.onnx").read_bytes() == first
    as_new_export(cached / "small.onnx", grow)
    as_new_export(cached / "small.onnx", put_a_transpose_in)
    refused = deploykit("gate", "--only", "latency_s")
    assert refused.code == 2
    assert "The cache holds another file than its name says." in refused.err


@pytest.mark.parametrize(("second", "code"), [(0.2, 1), (0.05, 0)])
def test_a_time_beyond_its_limit_is_measured_again_and_the_lower_one_counts(
    project: Path, deploykit: Callable, here: Path, monkeypatch: pytest.MonkeyPatch, second: float, code: int
) -> None:
    budget = '[[budgets]]\nmeasure = "load_s"\nlimit = 0.1\ndevices = ["ours"]\nreason = "the first frame waits"\n'
    (here / "deploykit.toml").write_text('recipe = "small/small.toml"\n' + budget, "utf-8")
    left = [0.3, second]

    def measure(gated: Sequence[Gated], say: object, *, max_seconds: float) -> dict[str, dict[Measure, Measurement]]:
        found = {Measure.LOAD: Measurement(left.pop(0), device="ours")}
        return {one.subject.name: found for one in gated}

    monkeypatch.setattr(run, "measure_times", measure)
    result = deploykit("gate", "--only", "load_s", "--json")
    assert result.code == code
    assert not left
    (found,) = (one for one in json.loads(result.out)["body"]["findings"] if one["rule"] == "load_s")
    assert found["measured"] == second


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("gone.onnx",), "There is no such file."),
        (("--output-dir", "gone"), "There is no artifact in the folder."),
        (("--baseline", "gone.json"), "There is no such baseline."),
        (("--only", "beauty"), "There is no such rule."),
        (("--samples", "0"), "The value is out of range."),
        (("--clips", "0"), "The value is out of range."),
        (("--max-seconds", "nan"), "The value is out of range."),
        (("--yes",), "--yes answers a question that is not asked."),
        (("--recipe", "sinett"), "There is no such recipe."),
        (("--only", "hash", "--junit", "deploykit.toml/j.xml"), "The report cannot be written."),
        (("--only", "hash", "--summary", "small"), "The report cannot be written."),
    ],
)
def test_each_mistake_is_one_error(project: Path, deploykit: Callable, arguments: tuple[str, ...], said: str) -> None:
    result = deploykit("gate", *arguments)
    assert result.code == 2
    assert said in result.err
    assert "Traceback" not in result.err


def test_one_artifact_in_two_makings_is_refused(project: Path, deploykit: Callable) -> None:
    shutil.copytree(project.parent, project.parent.with_name("older"))
    result = deploykit("gate", "--only", "hash")
    assert result.code == 2
    assert "small onnx fp32 1x3x64x64, 2 times" in result.err
    assert deploykit("gate", str(project), "--only", "hash").code == 0


def test_a_damaged_baseline_is_an_error_and_a_budget_that_meets_nothing_is_reported(
    project: Path, deploykit: Callable, here: Path
) -> None:
    (here / "gate-baseline.json").write_text("{}", "utf-8")
    damaged = deploykit("gate", *COUNTS)
    assert damaged.code == 2
    assert "The baseline cannot be read." in damaged.err
    (here / "gate-baseline.json").unlink()
    budget = '[[budgets]]\nmeasure = "bytes"\nlimit = 1\ntargets = ["tflite"]\nreason = "for phones of one maker"\n'
    (here / "deploykit.toml").write_text('recipe = "small/small.toml"\n' + budget, "utf-8")
    sleeping = deploykit("gate", *FAST)
    assert sleeping.code == 0
    assert "no artifact is bounded by the budget of bytes in deploykit.toml (tflite)" in sleeping.out

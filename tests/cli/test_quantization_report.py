"""deploykit quantization-report: every cell once, failed and impossible ones listed, fronts as the figures say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deploykit import api
from deploykit.artifact import changed_files, read_artifact
from deploykit.evaluation.evaluate import Options
from deploykit.provenance.measurements import measurement_findings

COMMAND = (
    "quantization-report",
    "small/small.toml",
    "--targets",
    "onnx",
    "--calibration-images",
    "8",
    "--max-drop",
    "100",
)
QUICK = ("--held-out", "2", "--runs", "3", "--seconds", "0")
STRICT = """
[tolerances.int8]
relative_l2 = 1e-9
reason = "no file with integers keeps this"
"""
HALF = "relative_l2 = 1e-2"


def by_name(cells):
    return {(one["target"], one["precision"], one["defaults"]): one for one in cells}


def test_files_are_made_judged_timed_and_kept(deploykit, small, reported):
    result = deploykit(
        *COMMAND, *QUICK, "--precisions", "int8,fp32,w8a16", "-o", "kept", "--picture", "p.svg", "--json"
    )
    assert result.code == 0, result.err
    record = json.loads(result.out)
    assert record["kind"] == "quantization-report"
    body = record["body"]
    cells = by_name(body["cells"])
    assert list(cells) == [
        ("onnx", "fp32", False),
        ("onnx", "int8", False),
        ("onnx", "int8", True),
        ("onnx", "w8a16", False),
    ]
    impossible = cells.pop(("onnx", "w8a16", False))
    assert (impossible["state"], impossible["nearest"], impossible["figures"]) == ("impossible", "int8", None)
    files = [one["figures"] for one in cells.values()]
    whole, chosen, defaults = files
    assert [one["state"] for one in cells.values()] == ["made"] * 3
    assert whole["weight_share"] == 1
    assert chosen["weight_bytes"] < whole["weight_bytes"] / 2
    assert chosen["weight_share"] < 0.6
    assert defaults["quantization"]["estimator"] == "min-max"
    assert (defaults["quantization"]["equalization"], defaults["quantization"]["corrected_biases"]) == (0, 0)
    assert chosen["quantization"]["corrected_biases"] > 0
    (run,) = [
        api.evaluate(chosen["path"], options=Options(samples=2, clips=2)).evaluations[0].summary("two_class_miou")
    ]
    assert chosen["miou"] == pytest.approx(run.estimate.value)
    for one in files:
        assert len(one["latency"]["samples_s"]) >= 3
        beaten = [
            other
            for other in files
            if other["miou"] >= one["miou"]
            and other["size_bytes"] <= one["size_bytes"]
            and (other["miou"], -other["size_bytes"]) != (one["miou"], -one["size_bytes"])
        ]
        assert one["smallest"] is not bool(beaten)
    # Each file that stays has its evaluation beside it, the one that the report shows.
    for one in files:
        artifact = read_artifact(Path(one["path"]))
        (measured,) = artifact.measurements
        assert measurement_findings(artifact.path.parent / measured.path, artifact) == []
        kept = json.loads((artifact.path.parent / measured.path).read_text("utf-8"))["body"]["evaluations"]
        own = next(row for row in kept if row["content_hash"] == artifact.content_hash)
        assert own["summaries"] == one["summaries"]
        assert changed_files(artifact) == ()
    assert "<svg" in (small.parents[1] / "p.svg").read_text("utf-8")
    assert result.err.count("onnx: converting") == 3
    page, note = reported(small.parents[1] / "kept", result.out)
    for words in ("Precisions of small", "onnx int8, a quantizer&#39;s defaults", "impossible"):
        assert words in page
    for one in files:
        assert f"{100 * one['miou']:.2f}" in page
        assert f"{100 * one['miou']:.2f}" in note


def test_a_cell_that_fails_stops_no_other_and_gives_exit_code_1(deploykit, small, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    text = small.read_text("utf-8")
    assert text.count(HALF) == 1
    small.write_text(text.replace(HALF, "relative_l2 = 1e-9"), "utf-8")
    result = deploykit(*COMMAND, *QUICK, "--precisions", "fp16,fp32")
    assert result.code == 1
    assert "deploykit: error: onnx fp16: The onnx file does not give what the checkpoint gives" in result.err
    assert "Traceback" not in result.err
    made, _, not_made = result.out.partition("Not made")
    assert "fp32" in made
    assert "fp16" not in made
    assert not_made.count("failed") == 1


@pytest.mark.full
def test_a_quantizers_defaults_fail_beside_the_cell_that_they_are_compared_with(deploykit, small, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    small.write_text(small.read_text("utf-8") + STRICT, "utf-8")
    result = deploykit(*COMMAND, *QUICK, "--precisions", "fp32,int8")
    assert result.code == 1
    assert "deploykit: error: onnx int8: The onnx file does not give what the checkpoint gives" in result.err
    assert "Traceback" not in result.err
    made, _, not_made = result.out.partition("Not made")
    assert "fp32" in made
    assert "int8" not in made
    assert not_made.count("failed") == 2
    assert "int8, defaults" in not_made


def test_verbose_shows_where_a_cell_failed(deploykit, small):
    small.write_text(small.read_text("utf-8").replace("max_abs_error = 2e-4", "max_abs_error = 1e-12"), "utf-8")
    result = deploykit(*COMMAND, *QUICK, "--precisions", "fp32", "--verbose")
    assert result.code == 1
    assert result.err.count("Traceback (most recent call last)") == 1
    assert "onnx fp32\nTraceback" in result.err
    assert "deploykit.errors.VerificationError: The onnx file does not give" in result.err


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        (("--targets", "onnx,tensorrt"), ("--targets", "tensorrt", "coreml")),
        (("--precisions", "int4"), ("--precisions", "int4", "int8-weights")),
        (("--held-out", "0"), ("--held-out", "greater than or equal to 1")),
        (("--runs", "0"), ("--runs", "at least 1")),
        (("--picture", "p.gif"), ("--picture", ".svg or .png")),
    ],
)
def test_what_has_no_meaning_is_refused_with_exit_code_2(deploykit, small, arguments, texts):
    result = deploykit("quantization-report", "small/small.toml", *arguments)
    assert result.code == 2
    assert result.out == ""
    for text in texts:
        assert text in result.err
    assert "Traceback" not in result.err

"""bench --save keeps a run by machine, and results and papers find it there."""

from __future__ import annotations

import json


def test_a_saved_run_is_listed(deploykit, here, small_onnx):
    quick = ("--runs", "3", "--seconds", "0", "--precision-target", "none", "--no-startup")
    result = deploykit("bench", str(small_onnx), *quick, "--save", "--results-dir", "kept", "--json")
    assert result.code == 0, result.err
    measured = json.loads(result.out)["body"]["measured"][0]
    (path,) = (here / "kept").glob("*/bench-*.json")
    assert path.as_posix().removeprefix(here.as_posix() + "/") in result.err.replace("\n", "")
    listed = json.loads(deploykit("results", "kept", "--json").out)["body"]
    (only,) = [point for series in listed for point in series["points"] if series["subject"]["target"] == "onnx"]
    assert only["content_hash"] == measured["content_hash"]
    assert only["median_s"] == measured["median_s"]


def test_a_folder_of_results_without_save_is_refused(deploykit, here):
    result = deploykit("bench", "--results-dir", "kept")
    assert (result.code, list(here.iterdir())) == (2, [])
    assert "--save" in result.err


def test_what_a_file_is_stays_beside_what_was_measured(deploykit, here, small_onnx):
    quick = ("--runs", "3", "--seconds", "0", "--max-seconds", "1", "--no-startup")
    result = deploykit("bench", str(small_onnx), *quick, "--json")
    (row,) = json.loads(result.out)["body"]["measured"]
    assert row["precision"] == "fp32"
    assert row["interval_reach"] is None or row["interval_reach"] > 0

"""All five networks, every rule of resizing and every contract of files, in Chromium against the host."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
from browser_case import needs_browser, quick, served, shown

from deploykit import api
from deploykit.benchmark import bench
from deploykit.latency.measure import Protocol
from deploykit.latency.subjects import find_subjects
from deploykit.lowering import ExportOptions
from deploykit.results.store import read_runs, save_run
from deploykit.vocab import InputKind, OutputKind, Precision
from deploykit.web.plan import make_page_plan

pytestmark = [needs_browser, pytest.mark.full]

NETWORKS = ("sinet", "portraitnet", "rcrnet", "elb", "mobilenetv3-sappm")
VIDEO = ("rcrnet-video", "portraitnet-video")


@pytest.mark.parametrize("network", NETWORKS)
def test_the_benchmark_of_a_network_is_an_ordinary_record(network: str, tmp_path) -> None:
    api.export(network, targets=["onnx", "tflite"], output_dir=tmp_path / "files")
    result = bench([tmp_path / "files"], device="browser", runs=5, seconds=0, max_seconds=1, precision_target=None)
    assert result.complete
    assert not result.skipped
    assert {str(one.target) for one in result.measured} == {"onnx", "tflite"}
    for one in result.measured:
        assert (one.driver, one.accelerator, one.network) == ("browser", "wasm", network)
        assert len(one.samples_s) >= 5
        assert not any("otherwise than the host" in note for note in one.notes)
    save_run(result, tmp_path / "results")
    assert read_runs(tmp_path / "results").runs[0].measured == result.measured


def agreed(browser, subjects) -> None:
    """Every one of ``subjects`` has the host's mask in the page, by the host's tensor and by the page's own."""
    plan = quick(make_page_plan(subjects, Protocol()), min_runs=1, warmup_seconds=0.0)
    assert not plan.skipped
    with served(plan) as server, shown(browser, server, "#run") as (page, seen):
        page.wait_for_selector("html[data-benchmark=ended]")
        result = server.runs.all()[0].benchmark()
        assert seen.errors == []
    assert not result.skipped, result.skipped
    assert len(result.measured) == len(subjects)
    assert not [note for one in result.measured for note in one.notes if "otherwise than the host" in note]


@pytest.mark.parametrize("network", VIDEO)
def test_a_network_that_takes_its_last_mask_agrees(browser, network: str, tmp_path) -> None:
    api.export(network, targets=["onnx", "tflite"], output_dir=tmp_path)
    agreed(browser, find_subjects([tmp_path]))


def test_every_kind_of_input_and_output_agrees(browser, tmp_path) -> None:
    kinds = [
        ExportOptions(input_kind=InputKind.IMAGE, output_kind=OutputKind.PROBABILITY),
        ExportOptions(input_kind=InputKind.TENSOR, output_kind=OutputKind.MASK),
        ExportOptions(precision=Precision.FP16),
    ]
    for index, options in enumerate(kinds):
        api.export("sinet", targets=["onnx", "tflite"], options=options, output_dir=tmp_path / str(index))
    agreed(browser, find_subjects([tmp_path]))


def test_every_rule_of_resizing_agrees_with_opencv(browser, small_files, tmp_path) -> None:
    (onnx,) = (one for one in small_files if one.path.suffix == ".onnx")
    subjects = []
    for rule in ("stretch", "letterbox"):
        for method in ("nearest", "bilinear", "bicubic", "area"):
            assert onnx.artifact is not None
            table = copy.deepcopy(onnx.artifact.recipe_table)
            table["inputs"][0]["resize"] = {"rule": rule, "filter": method, "pad_value": 77}
            changed = replace(onnx.artifact, recipe_table=table)
            subjects.append(replace(onnx, name=f"{rule} {method}", artifact=changed))
    agreed(browser, subjects)

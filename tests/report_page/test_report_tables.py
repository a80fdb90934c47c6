"""Records of every other kind have their place on the page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from report_cases import read_body, write_record

from deploykit.artifact import find_artifacts
from deploykit.attribution.records import Attribution, ModuleError, Verdict
from deploykit.comparison_records import Estimate, Judgement, LatencyComparison, Side
from deploykit.comparison_records import Verdict as LatencyVerdict
from deploykit.provenance.records import Link, ManifestCheck
from deploykit.provenance.records import Verdict as LinkVerdict
from deploykit.quantization_report import Cell, QuantizationReport, State
from deploykit.quantize.sensitivity import LayerSensitivity, Measured, Sensitivity
from deploykit.records import Calibration
from deploykit.report_page import Standing, write_report
from deploykit.vocab import Precision, Target

CALIBRATION = Calibration("portraits", 4, 2, "0" * 64, ("a", "b"))


def written_text(folder: Path, kind: str, body: object) -> str:
    write_record(folder / "more.json", kind, body)
    summary = write_report(folder, folder / "r.html", pictures=False)
    assert summary.left_out == ()
    return (folder / "r.html").read_text("utf-8")


def test_a_comparison_shows_ratio_interval_and_noise(folder):
    (artifact,) = find_artifacts(folder)
    side = Side("chain.onnx", "ONNX Runtime", 0.001, artifact.content_hash)
    judged = Judgement(
        LatencyVerdict.SLOWER,
        "the whole interval is beyond the margin",
        0.02,
        12,
        0.95,
        Estimate(1.1567, 1.12, 1.19),
        noise_floor=0.011,
    )
    text = written_text(folder, "compare", LatencyComparison(side, side, judged, 1, (0,), 0, 3.0, 30.0))
    for words in ("chain.onnx against chain.onnx", "slower", "1.157", "95 %: 1.120 to 1.190", "1.10 %"):
        assert words in text


def test_a_comparison_with_an_unknown_file_is_left_out(folder):
    side = Side("chain.onnx", "ONNX Runtime", 0.001, "0" * 64)
    judged = Judgement(LatencyVerdict.INCONCLUSIVE, "noise", 0.02, 3)
    write_record(folder / "more.json", "compare", LatencyComparison(side, side, judged, 1, (), 0, 3.0, 30.0))
    summary = write_report(folder, folder / "r.html", pictures=False)
    assert {one.path for one in summary.left_out} == {"more.json"}
    assert "Compared side by side" not in (folder / "r.html").read_text("utf-8")


def test_the_precisions_of_a_quantization_report_are_listed_with_their_reasons(folder):
    (artifact,) = find_artifacts(folder)
    cells = (Cell(Target.COREML, Precision.INT8, False, State.IMPOSSIBLE, "no static scheme", Precision.FP16),)
    body = QuantizationReport("chain", artifact.checkpoint_sha256, 4, CALIBRATION, (), cells)
    text = written_text(folder, "quantization-report", body)
    assert "Precisions of chain" in text
    assert "no static scheme" in text


def test_layers_are_shown_from_verification_and_sensitivity(folder):
    row = ModuleError("wide", (), ("conv",), 1, 0, "v", 1e-3, 1e-6, 9.5, 1e-3, None, None, None, Verdict.ACCUSED)
    layers = Attribution(
        "chain.onnx", Target.ONNX, Precision.FP32, ("a",), "r", None, (row,), "It jumps in wide.", 1, 0, 0, 1, 0, {}
    )
    body = read_body(folder / "chain" / "records" / "verify.json")
    write_record(folder / "chain" / "records" / "verify.json", "verify", {**body, "layers": layers.__dict__})
    found = Sensitivity(
        "chain",
        Target.TFLITE,
        Precision.INT8,
        None,
        0.0,
        0,
        CALIBRATION,
        Measured(1.25, 20.0),
        (LayerSensitivity("head", 17.5, 1, Measured(0.5, 18.0)),),
    )
    text = written_text(folder, "sensitivity", found)
    for words in ("It jumps in wide.", "9.50", "accused", "loses 1.250 points", "17.5", "head"):
        assert words in text


@pytest.mark.parametrize(
    ("verdict", "standing"), [(LinkVerdict.PASS, Standing.PASS), (LinkVerdict.FAIL, Standing.FAIL)]
)
def test_a_checked_chain_counts(folder, verdict, standing):
    seal = read_seal(folder)
    check = ManifestCheck("chain.onnx", seal, (Link("files", verdict, "1 with the recorded SHA-256"),))
    write_record(folder / "more.json", "verify-manifest", check)
    summary = write_report(folder, folder / "r.html", pictures=False)
    assert summary.standing is standing
    assert "its chain, checked" in (folder / "r.html").read_text("utf-8")


def read_seal(folder: Path) -> str:
    (manifest,) = folder.glob("chain/onnx-*/manifest.json")
    return str(json.loads(manifest.read_text("utf-8"))["sha256"])

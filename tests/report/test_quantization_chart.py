"""The picture of a quantization report, and the fronts that it draws."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import cv2
import pytest

from deploykit.errors import UsageError
from deploykit.evaluation.records import Estimate, Summary
from deploykit.latency_records import Latency
from deploykit.quantization_report import Cell, Figures, QuantizationReport, State, pareto_front
from deploykit.records import Calibration
from deploykit.report.quantization_chart import COLORS, write_chart
from deploykit.vocab import Precision, Target

SVG = "{http://www.w3.org/2000/svg}"


def cell(target, precision, size_bytes, miou, *, time_s=None, defaults=False, smallest=False):
    latency = None if time_s is None else Latency("a", "here", "host", "cpu", 1, 3, (time_s,))
    figures = Figures(
        path=None,
        content_hash="",
        size_bytes=size_bytes,
        weight_bytes=size_bytes,
        weight_share=1.0,
        quantization=None,
        summaries=(Summary("two_class_miou", Estimate(miou, None), 2, 0),),
        latency=latency,
        smallest=smallest,
    )
    return Cell(target, precision, defaults, State.MADE, figures=figures)


@pytest.fixture
def report():
    cells = (
        cell(Target.ONNX, Precision.FP32, 400_000, 0.961, time_s=0.002, smallest=True),
        cell(Target.ONNX, Precision.INT8, 240_000, 0.959, time_s=0.003, smallest=True),
        cell(Target.ONNX, Precision.INT8, 230_000, 0.611, time_s=0.003, defaults=True),
        cell(Target.COREML, Precision.FP16, 330_000, 0.9605),
        Cell(Target.ONNX, Precision.W8A16, False, State.IMPOSSIBLE, "no such kernels", Precision.INT8),
    )
    summary = Summary("two_class_miou", Estimate(0.961, None), 2, 0)
    return QuantizationReport("net", "0", 2, Calibration("here", 8, 2, "0", ()), (summary,), cells)


def dots(path, color, *, filled):
    found = [one for one in ElementTree.parse(path).iter(f"{SVG}circle") if one.get("stroke") == color]
    return [one for one in found if (one.get("fill") == color) is filled]


def test_every_file_is_a_dot_in_each_panel_that_has_its_figure(report, tmp_path):
    path = tmp_path / "new" / "trade.svg"
    write_chart(report, path)
    # One dot more of each target is in the legend.
    assert len(dots(path, COLORS[Target.ONNX], filled=True)) == 2 * 2 + 1
    assert len(dots(path, COLORS[Target.ONNX], filled=False)) == 2
    assert len(dots(path, COLORS[Target.COREML], filled=True)) == 1 + 1
    words = [one.text for one in ElementTree.parse(path).iter(f"{SVG}text")]
    assert words.count("int8") == 2
    # A wreck stands on the lower edge with its value.
    assert words.count("int8, defaults (0.61)") == 2
    wreck, best = (float(dots(path, COLORS[Target.ONNX], filled=filled)[-1].get("cy")) for filled in (False, True))
    assert wreck > best
    sheet = ElementTree.parse(path).getroot()
    for one in sheet.iter(f"{SVG}circle"):
        assert 0 < float(one.get("cx")) < float(sheet.get("width"))
        assert 0 < float(one.get("cy")) < float(sheet.get("height"))
    assert list(path.parent.iterdir()) == [path]


def test_the_same_report_gives_the_same_svg_and_a_png_with_its_colors(report, tmp_path):
    for name in ("a.svg", "b.svg", "c.png"):
        write_chart(report, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    pixels = cv2.imread(str(tmp_path / "c.png"))[:, :, ::-1]
    assert {(0x2B, 0x6C, 0xB0), (0x6B, 0x46, 0xC1)} <= set(map(tuple, pixels.reshape(-1, 3).tolist()))
    with pytest.raises(UsageError, match="no known format"):
        write_chart(report, Path("d.gif"))


def test_a_front_holds_what_no_other_beats_and_equals_share_it():
    costs = [1.0, 2.0, 2.0, 3.0, 0.5, None, 4.0]
    qualities = [0.8, 0.9, 0.9, 0.85, None, 1.0, 0.91]
    assert pareto_front(costs, qualities) == [True, True, True, False, False, False, True]
    assert pareto_front([1.0, 1.0], [0.8, 0.9]) == [False, True]

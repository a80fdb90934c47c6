"""Charts stand on the samples: axes, the interval, stray runs, the Pareto front."""

from __future__ import annotations

import json
import re

import pytest
from report_cases import rewrite

from deploykit.report_page.axes import Axis, around
from deploykit.report_page.charts import _front, _stairs, panels, strips
from deploykit.report_page.matching import match
from deploykit.report_page.reading import collect


def test_an_axis_places_values_and_round_numbers():
    axis = Axis(0.0, 10.0, 100.0, 200.0)
    assert [axis.place(value) for value in (-1, 0, 5, 10, 11)] == [100, 100, 150, 200, 200]
    assert [tick.text for tick in axis.ticks()] == ["0", "2", "4", "6", "8", "10"]
    decades = Axis(1.0, 1000.0, 0.0, 300.0, logarithmic=True)
    assert decades.place(10.0) == 100
    assert [tick.text for tick in decades.ticks()][:4] == ["1", "2", "5", "10"]


@pytest.mark.parametrize("values", [[5.0], [0.0], [1.0, 2.0], [0.01, 900.0]])
def test_there_is_room_beside_every_value(values):
    low, high = around(values)
    assert low < min(values) <= max(values) < high


def test_the_front_is_what_nothing_beats():
    points = [(1.0, 90.0, 1), (2.0, 95.0, 2), (3.0, 94.0, 3), (2.0, 93.0, 4), (4.0, 96.0, 5)]
    assert _front(points) == {1, 2, 5}
    assert _front([(1.0, 90.0, 1), (1.0, 90.0, 2)]) == {1, 2}
    assert _stairs([(10, 50), (20, 30), (40, 10)]) == "M10 50H20V30H40V10"


def test_a_strip_has_every_run_and_counts_stray_ones(folder):
    path = folder / "chain" / "records" / "bench.json"
    measured = json.loads(path.read_text("utf-8"))["body"]["measured"]
    samples = [0.010 + 0.0001 * index for index in range(40)] + [2.0]
    measured[0].update(samples_s=samples, starts_s=[], sessions=[], interval_s=[0.0115, 0.0125])
    rewrite(path, measured=measured)
    (chart,) = strips(match(collect(folder)))
    (strip,) = chart.strips
    assert strip.beyond == 1
    assert len(re.findall("h0", strip.dots)) == 40
    assert strip.low < strip.median < strip.high
    assert "12.00 ms" in chart.summary
    (hidden,) = chart.hidden
    assert "1 of 41 runs (2.4 %) are beyond the axis, the longest takes 2000.00 ms" in hidden


def test_a_panel_has_each_measured_file_once(folder):
    matched = match(collect(folder))
    latency, size = panels(matched)
    for panel in (latency, size):
        (mark,) = panel.marks
        assert (mark.number, mark.name, mark.front) == ("1", "chain onnx fp32", True)
    assert latency.unit == "ms, median of one run, logarithmic axis"
    assert "kB" in size.unit

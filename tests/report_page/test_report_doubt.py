"""What makes a figure less than it seems stands beside it: noise, merged classes, and paths that are this machine's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from report_cases import read_body, rewrite

from deploykit.report_page import write_report
from deploykit.report_page.content import content_of
from deploykit.report_page.matching import match
from deploykit.report_page.reading import collect
from deploykit.report_page.rows import Content
from deploykit.report_page.verdict import judge

BENCH = Path("chain") / "records" / "bench.json"


def seen(folder: Path) -> Content:
    matched = match(collect(folder))
    return content_of(matched, judge(matched, folder), (), folder)


@pytest.mark.parametrize(
    ("samples", "load", "words"),
    [
        ([0.010] * 10, 0.0, ""),
        ([0.010] * 8 + [0.025] * 2, 0.0, "the 90th percentile is 2.5 times the median"),
        ([0.010] * 10, 1.7, "other programs kept 1.7 cores busy"),
    ],
)
def test_a_noisy_latency_is_marked_in_the_table_of_files(folder, samples, load, words):
    measured = read_body(folder / BENCH)["measured"]
    measured[0].update(samples_s=samples, starts_s=[], sessions=[], interval_s=None)
    rewrite(folder / BENCH, measured=measured, conditions=[{"time_s": 1.0, "other_load": load}])
    (row,) = seen(folder).files
    assert row.latency.text == ("10.00 ms, noisy" if words else "10.00 ms")
    assert words in row.latency.detail


def test_two_classes_are_merged_into_nothing_and_three_are_said(folder):
    assert seen(folder).merged == ()
    (manifest,) = folder.glob("chain/onnx-*/manifest.json")
    record = json.loads(manifest.read_text("utf-8"))
    record["body"]["recipe_table"]["outputs"][0]["classes"] = ["background", "hair", "face"]
    manifest.write_text(json.dumps(record), "utf-8")
    (text,) = seen(folder).merged
    assert "hair and face are merged into the portrait, and background alone is the background" in text
    write_report(folder, folder / "r.html", markdown=folder / "r.md", pictures=False)
    assert text in (folder / "r.html").read_text("utf-8")
    assert text in (folder / "r.md").read_text("utf-8")


def test_commands_name_paths_as_they_are_from_here(folder, tmp_path, monkeypatch):
    shutil.rmtree(folder / "chain" / "records")
    (folder / "gate.json").unlink()
    monkeypatch.chdir(tmp_path)
    commands = [one.command for one in seen(folder).verdict.reasons]
    assert len(commands) == 4
    assert all(str(tmp_path) not in one for one in commands)
    assert "deploykit gate artifacts --json > artifacts/gate.json" in commands
    (folder / "nothing").mkdir()
    monkeypatch.chdir(folder / "nothing")
    assert all(str(folder) in one for one in (found.command for found in seen(folder).verdict.reasons))

"""Saved runs: written once and whole, read back as they were, damaged ones named; their course by subject."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deploykit.cli.main import app
from deploykit.errors import UsageError
from deploykit.latency_records import (
    Benchmark,
    Conditions,
    Latency,
    Machine,
    OperationTime,
    SkippedLatency,
    Startup,
    Stopped,
)
from deploykit.records import versioned
from deploykit.results.series import series_of
from deploykit.results.store import machine_folder, read_runs, save_run
from deploykit.vocab import Precision, Target

MACHINE = Machine("Some CPU (R) @ 2 GHz, 2 cores", "Some CPU", "x86_64", "Linux", 2)
SINET = Latency(
    artifact="onnx-fp32/sinet.onnx",
    device="Some CPU",
    driver="host",
    accelerator="cpu",
    threads=1,
    warmup_runs=3,
    samples_s=(0.004, 0.005, 0.009),
    size_bytes=400_000,
    runtime="ONNX Runtime 1.31",
    target=Target.ONNX,
    precision=Precision.FP32,
    content_hash="ab" * 32,
    starts_s=(0.0, 0.1, 0.2),
    sessions=(0, 0, 0),
    affinity=(1,),
    stopped=Stopped.PRECISION,
    interval_s=(0.0045, 0.0052),
    startup=Startup(0.2, 0.03, cold_cache=True, starts=2, starts_s={"process_s": (0.1, 0.3)}),
    steps={"inference": 0.004},
    operations=(OperationTime("conv_1", "Conv", 0.001, ("encoder.level1",)),),
    network="sinet",
)
RUN = Benchmark((SINET,), (SkippedLatency("x.mlpackage", "needs macOS"),), MACHINE, started="2026-11-21T10:00:00+00:00")


def later(median: float, started: str) -> Benchmark:
    return replace(RUN, measured=(replace(SINET, samples_s=(median,) * 3),), started=started)


def test_a_run_is_read_back_as_it_was_saved_and_kept_once(tmp_path):
    path = save_run(RUN, tmp_path)
    assert path == save_run(RUN, tmp_path)
    assert path.parent.name == "some-cpu-r-2-ghz-2-cores"
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    (found,) = read_runs(tmp_path).runs
    assert found.measured == RUN.measured
    assert (found.started, found.machine, found.complete) == (RUN.started, MACHINE.name, True)


def test_two_runs_of_one_second_do_not_write_over_each_other(tmp_path):
    assert save_run(RUN, tmp_path) != save_run(later(0.006, RUN.started), tmp_path)
    assert len(read_runs(tmp_path).runs) == 2


@pytest.mark.parametrize(
    ("name", "folder"), [("../../etc", "etc"), ("   ", "machine"), ("Müller's Mac", "m-ller-s-mac")]
)
def test_no_machine_name_leaves_the_folder_of_results(name, folder):
    assert machine_folder(replace(MACHINE, name=name)) == folder


def test_a_run_that_names_no_machine_is_refused(tmp_path):
    with pytest.raises(UsageError, match="does not name any"):
        save_run(replace(RUN, machine=None), tmp_path)


def test_a_folder_that_cannot_be_written_is_one_error_and_leaves_nothing(tmp_path):
    (tmp_path / "results").write_text("a file")
    with pytest.raises(UsageError, match="cannot be saved"):
        save_run(RUN, tmp_path / "results")
    assert [one.name for one in tmp_path.iterdir()] == ["results"]


def test_other_records_are_passed_over_and_damaged_ones_are_named_beside_the_rest(tmp_path):
    path = save_run(RUN, tmp_path)
    save_run(later(0.006, "2026-11-23T10:00:00+00:00"), tmp_path)
    (tmp_path / "networks.json").write_text(json.dumps(versioned("networks", [])))
    assert len(read_runs(tmp_path).runs) == 2
    whole = path.read_text()
    for damaged in (
        whole[:-20],
        whole.replace('"deploykit": 1', '"deploykit": 99'),
        whole.replace('"target": "onnx"', '"target": "toaster"'),
        whole.replace('"starts_s": [', '"starts_s": {"a": [').replace('],\n    "steps"', ']},\n    "steps"'),
        json.dumps(versioned("bench", {"measured": [{"artifact": "x", "samples_s": []}]})),
        "{}",
        "[" * 100_000,
    ):
        path.write_text(damaged)
        found = read_runs(tmp_path)
        assert [str(path) in str(one) for one in found.damaged] == [True]
        assert [one.measured[0].median_s for one in found.runs] == [0.006]


def test_a_damaged_record_does_not_hide_the_others_and_the_exit_code_says_so(tmp_path):
    path = save_run(RUN, tmp_path)
    save_run(later(0.006, "2026-11-23T10:00:00+00:00"), tmp_path)
    path.write_text("{}")
    for arguments in ([], ["--trend"], ["--csv"], ["--json"]):
        shown = results(tmp_path, *arguments)
        assert shown.exit_code == 2
        assert "6.000" in shown.stdout or "0.006" in shown.stdout
        assert str(path) in shown.stderr
        assert "no record of deploykit" in shown.stderr


def test_a_file_that_is_no_record_is_named_and_harmless(tmp_path):
    save_run(RUN, tmp_path)
    (tmp_path / "package.json").write_text("{}")
    shown = results(tmp_path)
    assert shown.exit_code == 0
    assert f"{tmp_path / 'package.json'} is no record of deploykit" in shown.stderr


def test_one_run_in_two_files_counts_once_and_is_said(tmp_path):
    path = save_run(RUN, tmp_path)
    copy = path.with_name("bench-copy.json")
    copy.write_text(json.dumps(json.loads(path.read_text())))
    (one,) = series_of(read_runs(tmp_path).runs)
    assert len(one.points) == 1
    shown = results(tmp_path, "--trend")
    assert shown.exit_code == 0
    assert "holds the same run as" in shown.stderr
    assert str(copy) in shown.stderr


def in_doubt() -> Benchmark:
    """A run that Ctrl-C ended, while another program had the core half of the time and the machine was hot."""
    cut = replace(SINET, stopped=Stopped.INTERRUPTED, away_s=(0.0, 0.001, 0.004))
    hot = (Conditions(0.0, throttled=0), Conditions(1.0, throttled=7))
    return replace(RUN, measured=(cut,), complete=False, ended="interrupted", conditions=hot)


def test_a_run_in_doubt_is_marked_and_another_is_not(tmp_path):
    save_run(RUN, tmp_path)
    (point,) = series_of(read_runs(tmp_path).runs)[0].points
    assert (point.cut_short, point.disturbed) == ("", ())
    assert "†" not in results(tmp_path).stdout
    save_run(replace(in_doubt(), started="2026-11-24T10:00:00+00:00"), tmp_path)
    (_, point) = series_of(read_runs(tmp_path).runs)[0].points
    assert point.cut_short == "interrupted"
    assert ["67% of the runs" in point.disturbed[0], "throttled" in point.disturbed[1]] == [True, True]
    for arguments in ([], ["--trend"]):
        text = results(tmp_path, *arguments).stdout
        assert "*†" in text
        assert "*: the run was ended early" in text
        assert "†: something disturbed the run" in text
    (plain, row) = csv.DictReader(io.StringIO(results(tmp_path, "--csv").stdout))
    assert (plain["cut_short"], plain["preempted"], plain["disturbed"], plain["stopped"]) == (
        "", "", "", "precision reached",
    )  # fmt: skip
    assert (row["cut_short"], row["stopped"], float(row["preempted"])) == ("interrupted", "interrupted", 2 / 3)
    assert "throttled for heat" in row["disturbed"]


def test_a_series_holds_one_subject_oldest_first_with_each_change(tmp_path):
    other = replace(SINET, threads=2)
    save_run(later(0.006, "2026-11-23T10:00:00+00:00"), tmp_path)
    save_run(replace(RUN, measured=(SINET, other)), tmp_path)
    save_run(later(0.004, "2026-11-22T10:00:00+00:00"), tmp_path)
    one, two = series_of(read_runs(tmp_path).runs)
    assert (one.subject.threads, two.subject.threads) == (1, 2)
    assert [point.median_s for point in one.points] == [0.005, 0.004, 0.006]
    assert [point.change for point in one.points] == [None, pytest.approx(-0.2), pytest.approx(0.5)]
    assert series_of(read_runs(tmp_path).runs, network="elb") == ()
    assert series_of(read_runs(tmp_path).runs, machine="other") == ()


def results(*arguments: str | Path):
    return CliRunner().invoke(app, ["results", *map(str, arguments)])


def test_the_command_shows_the_newest_the_course_csv_and_json(tmp_path):
    save_run(RUN, tmp_path)
    save_run(later(0.006, "2026-11-23T10:00:00+00:00"), tmp_path)
    assert "6.000" in results(tmp_path).stdout
    course = results(tmp_path, "--trend").stdout
    assert "5.000" in course
    assert "+20.0%" in course
    rows = list(csv.DictReader(io.StringIO(results(tmp_path, "--csv").stdout)))
    assert [float(row["median_s"]) for row in rows] == [0.005, 0.006]
    assert json.loads(results(tmp_path, "--json").stdout)["body"][0]["subject"]["network"] == "sinet"


def test_nothing_to_show_is_said_with_what_to_do(tmp_path):
    for arguments in ([tmp_path / "missing"], [tmp_path]):
        found = results(*arguments)
        assert isinstance(found.exception, UsageError)
        assert "bench --save" in str(found.exception)

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
from deploykit.errors import ArtifactError, UsageError
from deploykit.latency_records import Benchmark, Latency, Machine, OperationTime, SkippedLatency, Startup, Stopped
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
    startup=Startup(process_s=0.2, cold_load_s=0.03, cold_cache=True),
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
    (found,) = read_runs(tmp_path)
    assert found.measured == RUN.measured
    assert (found.started, found.machine, found.complete) == (RUN.started, MACHINE.name, True)


def test_two_runs_of_one_second_do_not_write_over_each_other(tmp_path):
    assert save_run(RUN, tmp_path) != save_run(later(0.006, RUN.started), tmp_path)
    assert len(read_runs(tmp_path)) == 2


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


def test_other_records_are_passed_over_and_damaged_ones_are_named(tmp_path):
    path = save_run(RUN, tmp_path)
    (tmp_path / "networks.json").write_text(json.dumps(versioned("networks", [])))
    assert len(read_runs(tmp_path)) == 1
    whole = path.read_text()
    for damaged in (
        whole[:-20],
        whole.replace('"deploykit": 1', '"deploykit": 99'),
        whole.replace('"target": "onnx"', '"target": "toaster"'),
        json.dumps(versioned("bench", {"measured": [{"artifact": "x", "samples_s": []}]})),
    ):
        path.write_text(damaged)
        with pytest.raises(ArtifactError) as refused:
            read_runs(tmp_path)
        assert str(path) in str(refused.value)


def test_a_series_holds_one_subject_oldest_first_with_each_change(tmp_path):
    other = replace(SINET, threads=2)
    save_run(later(0.006, "2026-11-23T10:00:00+00:00"), tmp_path)
    save_run(replace(RUN, measured=(SINET, other)), tmp_path)
    save_run(later(0.004, "2026-11-22T10:00:00+00:00"), tmp_path)
    one, two = series_of(read_runs(tmp_path))
    assert (one.subject.threads, two.subject.threads) == (1, 2)
    assert [point.median_s for point in one.points] == [0.005, 0.004, 0.006]
    assert [point.change for point in one.points] == [None, pytest.approx(-0.2), pytest.approx(0.5)]
    assert series_of(read_runs(tmp_path), network="elb") == ()
    assert series_of(read_runs(tmp_path), machine="other") == ()


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

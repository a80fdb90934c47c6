"""Speeds beside each other: the papers' devices and the runs saved here, each with its own device, never divided."""

from __future__ import annotations

from dataclasses import replace

from typer.testing import CliRunner

from deploykit.cli.main import app
from deploykit.errors import UsageError
from deploykit.latency_records import Benchmark, Latency, Machine, Stopped
from deploykit.papers.compare import compare
from deploykit.papers.figures import load_papers
from deploykit.results.store import read_runs, save_run
from deploykit.vocab import Precision, Target

MACHINE = Machine("my laptop", "Some CPU", "x86_64", "Linux", 2)
SINET = Latency("sinet.onnx", "a host", "host", "cpu", 1, 3, (0.004, 0.005, 0.009), 1, "ONNX Runtime", network="sinet")
SINET = replace(SINET, target=Target.ONNX, precision=Precision.FP32, interval_s=(0.0045, 0.0055))


def test_a_saved_latency_is_a_line_of_its_own_with_its_own_device(tmp_path):
    save_run(Benchmark((SINET,), machine=MACHINE, started="2026-11-21T10:00:00+00:00"), tmp_path)
    (sinet,) = compare(load_papers(), "sinet", runs=read_runs(tmp_path).runs)
    (line,) = [line for line in sinet.lines if line.figure == "latency_ms" and line.measured]
    assert (line.measured, line.interval, line.stated, line.deviation_percent) == (5.0, (4.5, 5.5), None, None)
    assert line.device == "my laptop, ONNX Runtime, onnx fp32, 1 thread"
    without = compare(load_papers(), "sinet")[0].lines
    assert not [line for line in without if line.figure == "latency_ms" and line.measured]


def test_the_table_marks_both_devices(tmp_path):
    save_run(Benchmark((SINET,), machine=MACHINE, started="2026-11-21T10:00:00+00:00"), tmp_path)
    shown = CliRunner().invoke(app, ["papers", "--network", "sinet", "--with-results", "--results-dir", str(tmp_path)])
    speeds = shown.stdout.split("Speed, each on its own device")[1]
    for expected in ("iPhone XS, Core ML", "100.6", "my laptop", "5 ", "4.50 to 5.50", "2026-11-21"):
        assert expected in speeds


def test_a_run_in_doubt_is_marked_with_a_footnote(tmp_path):
    cut = replace(SINET, stopped=Stopped.INTERRUPTED, away_s=(0.0, 0.001, 0.004))
    run = Benchmark((cut,), machine=MACHINE, started="2026-11-21T10:00:00+00:00", complete=False, ended="interrupted")
    save_run(run, tmp_path)
    (tmp_path / "bench-broken.json").write_text("{}")
    shown = CliRunner().invoke(app, ["papers", "--network", "sinet", "--with-results", "--results-dir", str(tmp_path)])
    assert "2026-11-21 *†" in shown.stdout
    assert "*: the run was ended early" in shown.stdout
    assert "bench-broken.json" in shown.stderr
    assert shown.exit_code == 2


def test_without_saved_runs_the_table_says_so_and_a_missing_folder_is_refused(tmp_path):
    arguments = ["papers", "--network", "sinet", "--with-results", "--results-dir"]
    assert "no saved run" in CliRunner().invoke(app, [*arguments, str(tmp_path)]).stdout
    assert isinstance(CliRunner().invoke(app, [*arguments, str(tmp_path / "no")]).exception, UsageError)

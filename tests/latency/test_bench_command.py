"""The command: what it measures when nothing is named, its table, its JSON and its errors."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from bench_cases import write_onnx

from deploykit.cli.bench import bench
from deploykit.errors import ArtifactError, DeploykitError, TargetError, UsageError
from deploykit.latency.drivers.host import EAGER
from deploykit.latency.machine import this_machine
from deploykit.latency_records import Benchmark, Latency, OperationTime, SkippedLatency, Startup, Stopped, Warned


def test_without_artifacts_the_default_recipe_is_exported_and_measured_then_what_lies_in_the_folder(
    tmp_path: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deploykit.toml").write_text('recipe = "recipe/tiny.toml"\n', "utf-8")
    bench(runs=3, seconds=0.0, precision_target="none", as_json=True)
    printed = capsys.readouterr()
    record = json.loads(printed.out)
    assert (record["deploykit"], record["kind"]) == (1, "bench")
    rows = record["body"]["measured"]
    assert [row["artifact"] for row in rows][:2] == [EAGER, "tiny.onnx"]
    assert [row["target"] for row in rows][:2] == [None, "onnx"]
    for row in rows:
        assert row["runs"] == len(row["samples_s"]) >= 3
        assert min(row["samples_s"]) <= row["median_s"] <= row["p90_s"] <= row["p95_s"] <= row["p99_s"]
        assert row["fps"] == pytest.approx(1 / row["median_s"])
        assert row["stopped"] == "runs done"
        assert row["interval_s"][0] <= row["median_s"] <= row["interval_s"][1]
        assert row["startup"]["first_inference_s"] > 0
    assert str(tmp_path) not in printed.out
    assert "1 thread, pinned to core" in printed.err or "1 thread, not pinned" in printed.err
    assert record["body"]["machine"]["name"] == this_machine().name
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deploykit.toml", "recipe"]


def test_the_files_of_the_output_folder_are_measured_in_one_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = write_onnx(tmp_path / "[a].onnx"), write_onnx(tmp_path / "b.onnx")
    bench([one, two], runs=3, seconds=0.0, precision_target="none", startup=False)
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert any("[a].onnx" in line and "1.00" in line for line in lines)
    assert any("b.onnx" in line for line in lines)
    assert "over that of [a].onnx" in printed.out
    assert "take turns" in printed.err


def _missing(tmp_path: Path) -> Path:
    return tmp_path / "gone.onnx"


def _wrong_suffix(tmp_path: Path) -> Path:
    (tmp_path / "m.pt").write_bytes(b"-")
    return tmp_path / "m.pt"


def _damaged(tmp_path: Path) -> Path:
    (tmp_path / "m.onnx").write_bytes(b"not a model")
    return tmp_path / "m.onnx"


@pytest.mark.parametrize(
    ("make", "error"), [(_missing, ArtifactError), (_wrong_suffix, TargetError), (_damaged, ArtifactError)]
)
def test_each_wrong_argument_is_one_error_of_the_user(
    tmp_path: Path, make: object, error: type[DeploykitError]
) -> None:
    assert callable(make)
    with pytest.raises(error) as caught:
        bench([make(tmp_path)])
    assert caught.value.exit_code == 2
    assert caught.value.found


def test_no_thread_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--threads"):
        bench([tmp_path / "gone.onnx"], threads="0")


def test_one_file_twice_is_refused(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx")
    with pytest.raises(UsageError, match="twice"):
        bench([path, path])


def test_an_output_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="output folder"):
        bench(output_dir=tmp_path / "artefacts")


def test_an_unknown_recipe_is_refused() -> None:
    with pytest.raises(DeploykitError, match="no such recipe"):
        bench(recipe="sinett")


def test_files_and_an_output_folder_do_not_go_together(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="do not go together"):
        bench([write_onnx(tmp_path / "m.onnx")], output_dir=tmp_path)


def test_what_was_ended_before_anything_was_measured_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Stands for Ctrl-C while files are being started.
    empty = Benchmark((), (SkippedLatency("m.onnx", "interrupted"),), complete=False, ended="interrupted")
    monkeypatch.setattr("deploykit.benchmark.bench", lambda *_, **__: empty)
    with pytest.raises(typer.Exit) as caught:
        bench([write_onnx(tmp_path / "m.onnx")])
    assert caught.value.exit_code == 130
    printed = capsys.readouterr()
    assert "skipped: interrupted" in printed.out
    assert "nothing was measured" in printed.err


def test_the_table_tells_the_numbers_of_threads_the_outliers_and_the_operations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = (*(0.01 + 0.0001 * (index % 7) for index in range(60)), 0.2)
    one = Latency(
        "m.onnx",
        "a machine",
        "host",
        "cpu",
        1,
        3,
        samples,
        stopped=Stopped.TIME,
        interval_s=(0.0102, 0.0104),
        startup=Startup(0.2, 0.05, False, 0.01, 0.02, 12_000_000, 3, {"first_inference_s": (0.02, 0.021, 0.018)}),
        operations=(OperationTime("relu_nchwc", "Conv", 0.004, ("stem.conv", "stem.act")),),
        warm=False,
    )
    warned = Warned("the frequency governor is powersave", "sudo cpupower frequency-set")
    other = replace(one, threads=2, samples_s=tuple(2 * sample for sample in samples))
    result = Benchmark((one, other), warnings=(warned,))
    monkeypatch.setattr("deploykit.benchmark.bench", lambda *_, **__: result)
    bench([write_onnx(tmp_path / "m.onnx")], threads="1,2", profile=True)
    printed = capsys.readouterr()
    for text in (
        "10.30",
        "1.0%",
        "time",
        "12.0",
        "50.00 *",
        "20.00 ±10%",
        "put out of the page cache",
        "stem.conv, stem.act",
    ):
        assert text in printed.out
    # Two numbers of threads are two processes: no ratio is formed between them.
    assert printed.out.count(" 1.00 ") == 2
    err = " ".join(printed.err.split())
    for text in (
        "1 of 61 runs",
        "up to 19.4 medians",
        "not known",
        "not steady",
        "powersave; sudo",
        "m.onnx, 2 threads",
    ):
        assert text in err

"""``deploykit web`` as a user calls it, without a browser: what it writes, where it serves, and what it refuses."""

from __future__ import annotations

import json

import pytest

from deploykit.artifact import read_artifact
from deploykit.benchmark import bench
from deploykit.cli.main import run_command
from deploykit.errors import ArtifactError, UsageError
from deploykit.latency.measure import Protocol
from deploykit.latency.subjects import Subject
from deploykit.vocab import Target
from deploykit.web.page import runtime_files
from deploykit.web.plan import bundled_picture, make_page_plan


@pytest.fixture
def web(monkeypatch, capsys):
    """Run ``deploykit web``; return exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["deploykit", "web", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            run_command()
        said = capsys.readouterr()
        return int(stopped.value.code or 0), said.out, said.err

    return run


@pytest.mark.usefixtures("runtimes")
def test_the_page_is_written_as_static_files(web, small_files, tmp_path) -> None:
    folder = small_files[0].path.parents[1]
    code, out, err = web(folder, "--export", tmp_path / "page")
    assert (code, out) == (0, "")
    assert "static files" in err
    written = sorted(path.relative_to(tmp_path / "page").as_posix() for path in (tmp_path / "page").rglob("*.*"))
    assert "index.html" in written
    assert "runtimes/onnx/ort.wasm.min.mjs" in written
    assert "runtimes/litert/litert_wasm_internal.wasm" in written
    assert not [name for name in written if "jspi" in name or "threaded_internal" in name]
    assert "enter.html" not in written
    plan = json.loads((tmp_path / "page" / "plan.json").read_bytes())
    assert not plan["reports"]
    for row in plan["subjects"]:
        assert (tmp_path / "page" / row["file"]).is_file()
        assert row["name"] in {one.name for one in small_files}
    # No path of this machine is published.
    text = (tmp_path / "page" / "plan.json").read_text("utf-8")
    assert str(folder) not in text
    code, _, err = web(folder, "--export", tmp_path / "page")
    assert code == 2
    assert "not empty" in err


def test_a_page_has_the_runtimes_of_its_files_and_accelerators_alone() -> None:
    def found(targets: tuple[Target, ...], accelerators: tuple[str, ...], threads: tuple[int, ...] = (1,)) -> set[str]:
        return {name for name in runtime_files(targets, accelerators, threads) if name.endswith(".wasm")}

    one = found((Target.TFLITE,), ("wasm",))
    assert one == {"litert/litert_wasm_internal.wasm", "litert/litert_wasm_compat_internal.wasm"}
    assert found((Target.TFLITE,), ("wasm",), (1, 2)) - one == {"litert/litert_wasm_threaded_internal.wasm"}
    assert found((Target.TFLITE,), ("webgpu",), (2,)) - one == {"litert/litert_wasm_jspi_internal.wasm"}
    assert found((Target.ONNX,), ("wasm",), (2,)) == {"onnx/ort-wasm-simd-threaded.wasm"}
    assert found((Target.ONNX,), ("webnn",)) == {"onnx/ort-wasm-simd-threaded.jspi.wasm"}
    assert len(found((Target.TFLITE, Target.ONNX), ("wasm", "webgpu"), (1, 2))) == 6


@pytest.mark.usefixtures("runtimes")
def test_it_serves_for_a_while_and_says_where(web, small_files) -> None:
    code, out, err = web(small_files[0].path, "--timeout", "0.3", "--json")
    assert code == 0
    assert "open http://127.0.0.1:" in err
    assert json.loads(out)["body"] == {"benchmarks": []}
    code, _, err = web(small_files[0].path, "--timeout", "0.3", "--lan", "--address", "127.0.0.1")
    assert code == 0
    assert "open https://127.0.0.1:" in err
    assert "/#" in err
    assert "SHA-256" in err
    assert "valid until" in err
    assert "█" in err or "▄" in err


@pytest.mark.parametrize(
    "options",
    [
        ("--address", "127.0.0.1"),
        ("--results-dir", "here"),
        ("--export", "there", "--lan"),
        ("--timeout", "0"),
        ("--timeout", "nan"),
        ("--record", "there.json", "--lan"),
        ("--export", "there", "--record", "there.json"),
        ("--accelerator", "cpu"),
        ("--threads", "0"),
        ("nothing.tflite",),
    ],
)
def test_what_does_not_go_together_is_one_clear_error(web, options, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = web(*options)
    assert (code, out) == (2, "")
    assert err.startswith("deploykit: error: ")
    assert "Traceback" not in err


def test_advice_names_what_was_wrong_and_a_command_that_helps(web, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    _, _, err = web("--timeout", "0")
    assert "out of range" in err
    assert "serve until Ctrl-C" in err
    assert "deploykit export sinet" in web()[2]
    assert "deploykit export portraitnet --target onnx --target tflite" in web("portraitnet")[2]
    code, _, err = web("--port", "99999")
    assert code == 2
    assert "65535" in err


def test_a_file_that_no_page_runs_is_left_out_with_the_reason(small_files) -> None:
    bare = Subject("bare.tflite", small_files[0].path, Target.TFLITE, 1, None)
    package = Subject("a.mlpackage", small_files[0].path, Target.COREML, 1, None)
    plan = make_page_plan([bare, package, small_files[0]], Protocol())
    assert [one.name for one in plan.subjects] == [small_files[0].name]
    assert "no manifest" in plan.skipped[0].reason
    assert "no browser runs coreml" in plan.skipped[1].reason
    with pytest.raises(ArtifactError, match="no file that a page can run"):
        make_page_plan([bare], Protocol())


def test_the_plan_holds_the_hosts_own_mask_and_inputs(small_files) -> None:
    plan = make_page_plan(small_files, Protocol())
    assert len(plan.files["files/picture.rgba"]) == 480 * 640 * 4
    assert bundled_picture().shape == (480, 640, 3)
    for row, subject in zip(plan.body["subjects"], small_files, strict=True):
        artifact = read_artifact(subject.path)
        assert [item["name"] for item in row["inputs"]] == [item.name for item in artifact.inputs]
        height, width = row["outputs"][0]["shape"][-2:]
        assert len(plan.files[row["mask"]]) == height * width
        assert set(plan.files[row["mask"]]) <= {0, 1}


def test_a_benchmark_in_a_browser_profiles_nothing(small_files) -> None:
    with pytest.raises(UsageError, match="one bundled picture"):
        bench([small_files[0].path], device="browser", profile=True)
    with pytest.raises(UsageError, match="no such browser"):
        bench([small_files[0].path], device="browser:elsewhere")

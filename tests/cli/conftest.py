"""Running the command line inside the test process, as a user would see it."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from targets.small_case import write_case

from deploykit import api
from deploykit.cli.main import run_command


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def small_recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe of a small network with a checkpoint; read it in place, and copy its folder before changing it."""
    return write_case(tmp_path_factory.mktemp("small_recipe"))


@pytest.fixture
def small(small_recipe: Path, here: Path) -> Path:
    """The same recipe in the current folder, as ``small/small.toml``."""
    shutil.copytree(small_recipe.parent, here / "small", ignore=shutil.ignore_patterns("__pycache__"))
    return here / "small" / "small.toml"


@pytest.fixture(scope="session")
def small_onnx(small_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of its ONNX file, to be copied before anything in it is changed."""
    (artifact,) = api.export(small_recipe, targets=["onnx"], output_dir=tmp_path_factory.mktemp("small_onnx"))
    return artifact.path.parent


@dataclass(frozen=True)
class Exported:
    """What ``deploykit export --json`` printed and the folder that it wrote into."""

    out: str
    folder: Path


@pytest.fixture(scope="session")
def sinet_onnx(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The ONNX file of the bundled SINet at 128x128, pixels in, as the command writes it; copy it to change it."""
    folder, printed = tmp_path_factory.mktemp("sinet_onnx"), io.StringIO()
    arguments = ["--target", "onnx", "--size", "128x128", "--input-kind", "image", "--json", "-o", str(folder)]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr("sys.argv", ["deploykit", "export", "sinet", *arguments])
        with pytest.raises(SystemExit) as stopped:
            run_command()
    assert not stopped.value.code
    return Exported(printed.getvalue(), folder)


@pytest.fixture
def deploykit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Return a function that runs one command and returns exit code, stdout and stderr."""

    def run(*arguments: str) -> Result:
        monkeypatch.setattr("sys.argv", ["deploykit", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            run_command()
        captured = capsys.readouterr()
        code = stopped.value.code
        return Result(0 if code is None else int(code), captured.out, captured.err)

    return run


@pytest.fixture
def reported(deploykit: Callable[..., Result]) -> Callable[[Path, str], tuple[str, str]]:
    """Return a function that puts a record, as a command printed it, into a folder of artifacts, and reports on both.

    It returns the page and the release note. Nothing in the folder may be left out.
    """

    def report(folder: Path, record: str) -> tuple[str, str]:
        (folder / "more.json").write_text(record, "utf-8")
        result = deploykit("report", folder, "--no-pictures", "-o", "r.html", "--markdown", "r.md", "--json")
        assert result.code == 0, result.err
        assert json.loads(result.out)["body"]["left_out"] == []
        return Path("r.html").read_text("utf-8"), Path("r.md").read_text("utf-8")

    return report

"""The built wheel works from any folder in another environment: it carries recipes and checkpoints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    words = [str(part) for part in command]
    done = subprocess.run(words, check=False, cwd=cwd, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_what_it_needs_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for needed in ("recipes/sinet.toml", "recipes/rcrnet.toml", "checkpoints/sinet.pt", "checkpoints/manifest.toml"):
        assert f"deploykit/bundled/{needed}" in names
    for needed in ("page.html", "macros.html", "page.css", "page.js"):
        assert f"deploykit/report_page/templates/{needed}" in names
    assert not [name for name in names if not name.startswith(("deploykit/", "deploykit-"))]
    assert "deploykit/web/page/index.html" in names
    assert wheel.stat().st_size < 40_000_000


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The Python of another environment in which the wheel is installed."""
    folder = tmp_path_factory.mktemp("env")
    venv.create(folder, with_pip=False)
    (site,) = (folder / "lib").glob("python*/site-packages")
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile")
    run(*pip, "--target", site, wheel, cwd=folder)
    # The dependencies of the environment that runs the tests are reused instead of being installed again.
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder / "bin" / "python"


def run_installed(python: Path, *arguments: str, cwd: Path) -> dict:
    code = "import sys, deploykit; sys.stderr.write(deploykit.__file__); from deploykit.cli.main import main; main()"
    done = run(python, "-c", code, *arguments, "--json", cwd=cwd)
    assert done.stderr.startswith(str(python.parents[1] / "lib"))
    return json.loads(done.stdout)["body"]


def test_the_installed_wheel_loads_a_bundled_network_from_any_folder(installed, tmp_path):
    body = run_installed(installed, "evaluate", "sinet", "--samples", "1", "--clips", "0", cwd=tmp_path)
    (found,) = body["evaluations"]
    assert found["subject"] == "sinet"
    assert found["images"][0]["foreground_iou"] > 0.9
    assert list(tmp_path.iterdir()) == []


@pytest.mark.full
def test_the_installed_wheel_exports_from_any_folder(installed, tmp_path):
    (artifact,) = run_installed(installed, "export", "--target", "onnx", cwd=tmp_path)["artifacts"]
    assert (tmp_path / artifact["path"]).is_file()
    assert (tmp_path / artifact["path"]).with_name("manifest.json").is_file()

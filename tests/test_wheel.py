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
    assert not [name for name in names if not name.startswith(("deploykit/", "deploykit-"))]
    assert wheel.stat().st_size < 25_000_000


def test_the_installed_wheel_exports_from_any_folder(wheel, tmp_path):
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    (site,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site, wheel, cwd=tmp_path)
    # The dependencies of the environment that runs the tests are reused instead of being installed again.
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    work = tmp_path / "elsewhere"
    work.mkdir()
    where = run(python, "-c", "import deploykit; print(deploykit.__file__)", cwd=work).stdout.strip()
    assert Path(where).is_relative_to(site)
    command = (python, "-c", "from deploykit.cli.main import main; main()")
    done = run(*command, "export", "--target", "onnx", "--json", cwd=work)
    (artifact,) = json.loads(done.stdout)["body"]["artifacts"]
    assert (work / artifact["path"]).is_file()
    assert (work / artifact["path"]).with_name("manifest.json").is_file()

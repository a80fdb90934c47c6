"""The committed page is what its source gives, and its packages are pinned without naming where they come from."""

from __future__ import annotations

import filecmp
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from deploykit.web.page import PAGE

SOURCE = Path(__file__).resolve().parents[2] / "web"


def test_packages_are_pinned_and_no_address_is_named() -> None:
    wanted = json.loads((SOURCE / "package.json").read_text("utf-8"))
    lock = json.loads((SOURCE / "package-lock.json").read_text("utf-8"))
    for version in (wanted["dependencies"] | wanted["devDependencies"]).values():
        assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    packages = {path: about for path, about in lock["packages"].items() if path}
    assert packages
    assert all("version" in about and "integrity" in about for about in packages.values())
    assert not [path for path, about in packages.items() if "resolved" in about]
    assert "registry" not in (SOURCE / ".npmrc").read_text("utf-8").replace("omit-lockfile-registry-resolved", "")


def test_nothing_in_the_page_asks_for_anything_elsewhere() -> None:
    for path in PAGE.rglob("*"):
        if path.is_file():
            found = re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}", path.read_text("utf-8"))
            assert not found, (path.name, found)


def test_the_committed_page_is_what_its_source_gives(tmp_path) -> None:
    if shutil.which("node") is None:
        pytest.skip("Node.js is not installed")
    vite = SOURCE / "node_modules" / "vite" / "bin" / "vite.js"
    if not vite.is_file():
        pytest.skip("the packages of the page are not installed; make web installs them")
    made = tmp_path / "page"
    command = ["node", str(vite), "build", "--outDir", str(made), "--logLevel", "error"]
    done = subprocess.run(command, check=False, cwd=SOURCE, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    names = sorted(path.relative_to(PAGE).as_posix() for path in PAGE.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file())
    same, different, missing = filecmp.cmpfiles(PAGE, made, names, shallow=False)
    assert (len(same), different, missing) == (len(names), [], [])

"""The documents say what the code does."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    specification = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_the_generated_pages_are_fresh_and_references_hold():
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate.py", "--check"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_stale_page_is_noticed(generator, tmp_path):
    for name in generator.PAGES:
        shutil.copy(ROOT / "docs" / name, tmp_path / name)
    assert generator.stale_pages(tmp_path) == []
    page = tmp_path / "targets.md"
    page.write_text(page.read_text().replace("nhwc", "nchw"))
    (tmp_path / "passes.md").unlink()
    assert sorted(generator.stale_pages(tmp_path)) == ["passes.md", "targets.md"]


def test_a_dead_link_and_an_unknown_command_are_noticed(generator, tmp_path):
    (tmp_path / "README.md").write_text(
        "[gone](docs/gone.md) [here](README.md)\n\n```sh\ndeploykit exprot sinet\ndeploykit export --targets all\n```\n"
    )
    assert generator.broken_references(tmp_path) == [
        "README.md: link to docs/gone.md",
        "README.md: deploykit exprot",
        "README.md: deploykit export --targets",
    ]


def test_the_recipe_in_the_readme_is_valid(tmp_path):
    from deploykit.recipe import load_recipe

    text = (ROOT / "README.md").read_text()
    block = text.split("```toml\n")[1].split("```")[0]
    tomllib.loads(block)
    (tmp_path / "mine.toml").write_text(block)
    assert load_recipe(tmp_path / "mine.toml").name == "mine"


def test_the_python_example_in_the_readme_runs(tmp_path, monkeypatch):
    from deploykit.images.synthetic import synthesize
    from deploykit.report.picture import write_image

    monkeypatch.chdir(tmp_path)
    write_image(tmp_path / "photo.jpg", synthesize(9_000_003).image)
    block = (ROOT / "README.md").read_text().split("```python\n")[1].split("```")[0]
    names: dict[str, object] = {}
    exec(compile(block, "README.md", "exec"), names)
    logits, latency = names["logits"], names["latency"]
    assert logits.shape == (1, 2, 224, 224)
    assert latency > 0
    assert names["graph"].report("fold_batch_norm").fired

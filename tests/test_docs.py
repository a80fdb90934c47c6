"""The documents say what the code does."""

from __future__ import annotations

import importlib.util
import os
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
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "docs"))  # as running the script does
        specification.loader.exec_module(module)
    return module


def test_the_generated_pages_are_fresh_in_any_terminal_and_references_hold():
    narrow = {**os.environ, "COLUMNS": "40", "FORCE_COLOR": "1", "TERM": "xterm-256color"}
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
        env=narrow,
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
        "[gone](docs/gone.md) [here](README.md)\n\n```sh\ndeploykit exprot sinet\ndeploykit export --targets all\n"
        "make demo  # fine\nmake tea\npip install 'deploykit[onnx,coreml]' 'deploykit[onyx]'\n```\n"
        "`deploykit bench --json`, `deploykit bench --jason` and `make coffee`; to make things is fine.\n"
    )
    assert generator.broken_references(tmp_path) == [
        "README.md: link to docs/gone.md",
        "README.md: deploykit exprot",
        "README.md: deploykit export --targets",
        "README.md: deploykit bench --jason",
        "README.md: make tea",
        "README.md: make coffee",
        "README.md: extra onyx",
    ]


def readme_block(section: str, language: str) -> str:
    """The first block of code in ``language`` below the heading that begins with ``section``."""
    text = (ROOT / "README.md").read_text("utf-8")
    return text.split(f"### {section}")[1].split(f"```{language}\n")[1].split("```")[0]


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """The network and recipe of the README in the current folder, with random weights."""
    import torch

    from deploykit import api
    from deploykit.network import build_network

    monkeypatch.chdir(tmp_path)
    section = "Export a network that deploykit has never seen"
    (tmp_path / "mynet.py").write_text(readme_block(section, "python"))
    (tmp_path / "mine.toml").write_text(readme_block(section, "toml"))
    torch.manual_seed(5)
    network = build_network(api.load_recipe("mine.toml"))
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.3, 3.0)
            torch.nn.init.uniform_(module.weight, 0.5, 2.0)
            torch.nn.init.normal_(module.bias)
    torch.save(network.state_dict(), "w.pth")


@pytest.mark.usefixtures("mine")
def test_the_network_and_recipe_in_the_readme_export():
    from deploykit import api

    verdict = api.verify_reparam("mine.toml")
    assert verdict.passed, verdict.findings
    (artifact,) = api.export("mine.toml", targets=["onnx"], output_dir="out")
    assert [record.name for record in artifact.outputs] == ["mask"]


def test_the_variant_in_the_readme_is_that_of_sinet():
    from deploykit.recipe import load_recipe

    (shown,) = tomllib.loads(readme_block("Files for a phone", "toml"))["variants"]
    assert load_recipe("sinet").variant(shown["name"]).model_dump(mode="json", include=set(shown)) == shown


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize(
    ("network", "output", "shape"),
    [
        # The same lines on the small network of the README cost a fifth of those on SINet.
        ("mine.toml", "mask", (1, 3, 96, 160)),
        pytest.param("sinet", "logits", (1, 2, 224, 224), marks=pytest.mark.full),
    ],
)
def test_the_python_example_in_the_readme_runs(tmp_path, network, output, shape):
    from deploykit.images.synthetic import synthesize
    from deploykit.report.picture import write_image

    write_image(tmp_path / "photo.jpg", synthesize(9_000_003).image)
    block = readme_block("In Python", "python")
    assert (block.count('load("sinet")'), block.count('["logits"]')) == (1, 1)
    block = block.replace('load("sinet")', f'load("{network}")').replace('["logits"]', f'["{output}"]')
    names: dict[str, object] = {}
    exec(compile(block, "README.md", "exec"), names)
    logits, latency = names["logits"], names["latency"]
    assert logits.shape == shape
    assert latency > 0
    assert names["graph"].report("fold_batch_norm").fired

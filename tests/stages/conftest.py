"""One real run of a pipeline on a tiny network, shared by the tests that look at what it leaves behind."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import chdir
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from stages.inside import Inside
from stages.tiny_case import write_tiny
from targets.small_case import write_case

from deploykit.stages.plan import PipelineOptions
from deploykit.stages.records import PipelineRun, Stage, StageKind, StageResult
from deploykit.stages.run import run_pipeline


@dataclass
class Ear:
    """Keeps what a pipeline says; ``on_start`` is called with every stage that begins."""

    begun: dict[str, str] = field(default_factory=dict)
    said_by: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    ends: list[StageResult] = field(default_factory=list)
    on_start: Callable[[Stage], None] = lambda stage: None

    def started(self, stage: Stage, because: str) -> None:
        self.begun[stage.name] = because
        self.on_start(stage)

    def said(self, stage: Stage, text: str) -> None:
        self.said_by.append(stage.name)
        self.texts.append(text)

    def ended(self, result: StageResult) -> None:
        self.ends.append(result)


@dataclass(frozen=True)
class Finished:
    """A recipe, the folder with what a pipeline made of it, and what became of every stage."""

    recipe: Path
    folder: Path
    run: PipelineRun
    ear: Ear

    def options(self, folder: Path, **changes: object) -> PipelineOptions:
        """The options of that run for another folder."""
        return replace(OPTIONS, output_dir=folder, **changes)


OPTIONS = PipelineOptions(skip=frozenset({StageKind.BENCH, StageKind.REPORT}))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder without a deploykit.toml: the budgets of this project are no concern of these tests."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A first run: fp32 passes, and fp16 fails, whose tolerance no file can keep. Copy the folder to change it."""
    base = tmp_path_factory.mktemp("finished")
    recipe, ear = write_tiny(base / "tiny"), Ear()
    with chdir(base):
        run = run_pipeline([recipe], replace(OPTIONS, output_dir=base / "artifacts"), ear)
    return Finished(recipe, base / "artifacts", run, ear)


@pytest.fixture
def copied(finished: Finished, tmp_path: Path) -> Path:
    """A copy of that folder, to be changed."""
    return Path(shutil.copytree(finished.folder, tmp_path / "artifacts"))


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pipelines do their stages in this process; what processes do is seen where this is not asked for."""
    monkeypatch.setattr("deploykit.stages.run.Worker", Inside)


@pytest.fixture(scope="session")
def small_recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe of a small network with every construct that a target finds hard; random weights may lose any mask."""
    recipe = write_case(tmp_path_factory.mktemp("small_recipe"))
    recipe.write_text(recipe.read_text("utf-8") + "\n[pipeline]\nmax_drop = 100.0\ncalibration_images = 8\n", "utf-8")
    return recipe

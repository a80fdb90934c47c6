"""Real inputs and what lies around the inference: photos, files that take pixels, the whole way to the composite."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from deploykit import api
from deploykit.benchmark import bench
from deploykit.cli.bench import bench as command
from deploykit.errors import ImageError, RecipeError, UsageError
from deploykit.images.synthetic import synthesize
from deploykit.latency.end_to_end import STEPS, open_file
from deploykit.latency.inputs import build_inputs
from deploykit.lowering import ExportOptions
from deploykit.recipe import load_recipe
from deploykit.records import Artifact
from deploykit.vocab import InputKind, Target

QUICK = {"runs": 20, "seconds": 0.0, "precision_target": None, "startup": False}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of two photos of different sizes, and a text that is none."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed, size in ((1, 100), (2, 140)):
        cv2.imwrite(str(folder / f"{seed}.png"), synthesize(seed, size).image[:, :, ::-1])
    (folder / "notes.txt").write_text("no photo", "utf-8")
    return folder


def _export(recipe: Path, folder: Path, kind: InputKind = InputKind.TENSOR) -> Artifact:
    (artifact,) = api.export(recipe, targets=[Target.ONNX], output_dir=folder, options=ExportOptions(input_kind=kind))
    return artifact


def test_photos_reach_files_of_tensors_and_files_of_pixels(tmp_path: Path, tiny_recipe: Path, photos: Path) -> None:
    recipe = load_recipe(tiny_recipe)
    files = [_export(tiny_recipe, tmp_path / kind, kind) for kind in InputKind]
    for artifact, dtype in zip(files, ("float32", "uint8"), strict=True):
        given = build_inputs(artifact.inputs, recipe, sorted(photos.glob("*.png")))
        assert [one["image"].dtype.name for one in given] == [dtype] * 2
        assert not np.array_equal(given[0]["image"], given[1]["image"])
    result = bench([one.path for one in files], images=photos, **QUICK)
    assert [len(one.samples_s) >= 20 for one in result.measured] == [True, True]
    assert [one.network for one in result.measured] == ["tiny", "tiny"]


def test_from_a_photo_to_the_composite_every_step_is_timed(
    tmp_path: Path, tiny_recipe: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact = _export(tiny_recipe, tmp_path / "out")
    command(
        [artifact.path],
        images=photos,
        end_to_end=True,
        profile=True,
        runs=20,
        seconds=0.0,
        precision_target="none",
        as_json=True,
    )
    (row,) = json.loads(capsys.readouterr().out)["body"]["measured"]
    assert [one["operation"] for one in row["operations"]].count("Conv") == 2
    assert not any("no profile" in note for note in row["notes"])
    assert set(row["steps"]) == set(STEPS)
    assert all(seconds > 0 for seconds in row["steps"].values())
    mean = sum(row["samples_s"]) / len(row["samples_s"])
    assert sum(row["steps"].values()) == pytest.approx(mean, rel=0.2)


def test_the_composite_is_the_person_before_another_ground(tmp_path: Path, tiny_recipe: Path, photos: Path) -> None:
    artifact = _export(tiny_recipe, tmp_path / "out")
    paths = [str(path) for path in sorted(photos.glob("*.png"))]
    opened = open_file({"path": str(artifact.path), "threads": 1, "arguments": {"photos": paths}})
    shown = [np.array(opened.run()) for _ in paths]
    assert [one.shape for one in shown] == [(100, 100, 3), (140, 140, 3)]
    outputs = api.run(artifact, image=paths[0])
    assert set(opened.steps()) == set(STEPS)
    assert opened.steps() == {}
    opened.close()
    photo = cv2.imread(paths[0])[:, :, ::-1]
    kept = (shown[0] == photo).all(axis=2)
    scores = outputs["logits"][0]
    share = (scores[1] > scores[0]).mean()
    assert abs(kept.mean() - share) < 0.05


def test_photos_that_are_not_there_or_that_nothing_describes_are_refused(
    tmp_path: Path, tiny_recipe: Path, photos: Path
) -> None:
    from bench_cases import write_onnx

    bare = write_onnx(tmp_path / "bare.onnx")
    with pytest.raises(ImageError):
        bench([bare], images=tmp_path / "nothing")
    with pytest.raises(UsageError, match="how the file takes photos"):
        bench([bare], images=photos)
    with pytest.raises(UsageError, match="what it makes of them"):
        bench([bare], end_to_end=True)
    with pytest.raises(UsageError, match="--compile"):
        bench([bare], compiled=True)
    one_class = tiny_recipe.read_text("utf-8").replace('classes = ["background", "portrait"]\n', "")
    tiny_recipe.write_text(one_class, "utf-8")
    artifact = _export(tiny_recipe, tmp_path / "out")
    with pytest.raises(RecipeError, match="end to end"):
        bench([artifact.path], end_to_end=True)


def test_a_profile_names_the_modules_of_the_network(
    tmp_path: Path, tiny_recipe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deploykit.toml").write_text('recipe = "recipe/tiny.toml"\n', "utf-8")
    monkeypatch.chdir(tmp_path)
    artifact = _export(tiny_recipe, tmp_path / "out")
    result = bench([artifact.path], profile=True, **QUICK)
    (found,) = result.measured
    convolutions = [one for one in found.operations if one.operation == "Conv"]
    assert {module for one in convolutions for module in one.modules} >= {"0", "2"}
    assert list(found.operations) == sorted(found.operations, key=lambda one: -one.seconds)
    assert found.notes == ()
    command([artifact.path], profile=True, runs=20, seconds=0.0, precision_target="none", startup=False)
    assert "Operations of tiny.onnx" in capsys.readouterr().out


def test_a_profile_without_the_checkpoint_says_why_it_names_no_modules(tmp_path: Path, tiny_recipe: Path) -> None:
    artifact = _export(tiny_recipe, tmp_path / "out")
    (found,) = bench([artifact.path], profile=True, **QUICK).measured
    assert found.operations
    assert all(one.modules == () for one in found.operations)
    assert any("names no modules" in note for note in found.notes)

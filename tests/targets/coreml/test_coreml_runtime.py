"""The runtimes of a package.

Core ML itself needs macOS: a fake of ``MLModel.predict`` stands for it here, at the border of the process, and shows
only what is handed to it and taken from it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb
from interpreter_programs import X, quiet_conversion, save_program

from deploykit.errors import ArtifactError
from deploykit.targets.coreml import runtime
from deploykit.targets.coreml.runtime import CoreMLRuntime, InterpreterRuntime, open_all, open_artifact
from deploykit.vocab import ColorOrder, Layout

PIXELS = np.random.default_rng(0).integers(0, 256, (1, 4, 5, 3)).astype(np.uint8)


class Inverted(torch.nn.Module):
    """Each channel on its own: a swapped order shows."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("high", torch.tensor([255.0, 245.0, 235.0])[:channels].reshape(1, -1, 1, 1).clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.high - x


@pytest.fixture
def tensors(tmp_path: Path) -> Path:
    return save_program(lambda x: mb.relu(x=x), {"x": X}, tmp_path / "tensors.mlpackage", "iOS15")


@pytest.fixture
def images(tmp_path: Path) -> Callable[[str, str], Path]:
    def written(taken: str, returned: str) -> Path:
        channels = 1 if taken == "GRAYSCALE" else 3
        path = tmp_path / f"{taken}-{returned}.mlpackage"
        with quiet_conversion():
            exported = torch.export.export(Inverted(channels), (torch.rand(1, channels, 4, 5),)).run_decompositions({})
            layouts = [getattr(ct.colorlayout, name) for name in (taken, returned)]
            ct.convert(
                exported,
                inputs=[ct.ImageType(name="image", shape=(1, channels, 4, 5), color_layout=layouts[0])],
                outputs=[ct.ImageType(name="out", color_layout=layouts[1])],
                compute_precision=ct.precision.FLOAT32,
            ).save(str(path))
        return path

    return written


@pytest.mark.skipif(sys.platform == "darwin", reason="there Core ML runs as well")
def test_off_macos_the_interpreter_is_all_there_is(tensors: Path) -> None:
    (only,) = open_all(tensors)
    with only as opened:
        assert type(opened) is InterpreterRuntime
        assert opened.name == "reference interpreter"
        np.testing.assert_array_equal(opened.run({"x": X})["out0"], np.maximum(X, 0))
    assert type(open_artifact(tensors)) is InterpreterRuntime


def test_inputs_that_do_not_fit_are_refused(tensors: Path) -> None:
    with pytest.raises(ArtifactError, match="does not fit"):
        InterpreterRuntime(tensors).run({"x": X[:1]})


@pytest.mark.parametrize("taken", ["RGB", "BGR"])
def test_images_are_rgb_whatever_the_program_takes(taken: str, images: Callable[[str, str], Path]) -> None:
    opened = InterpreterRuntime(images(taken, taken))
    for record in (*opened.inputs, *opened.outputs):
        assert (record.shape, record.dtype) == ((1, 4, 5, 3), "uint8")
        assert (record.layout, record.color_order) == (Layout.NHWC, ColorOrder.RGB)
    highest = np.array([255.0, 245.0, 235.0])[:: 1 if taken == "RGB" else -1]
    expected = np.clip(highest - PIXELS, 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(opened.run({"image": PIXELS})["out"], expected)


def test_a_grey_image_has_no_order_of_channels(images: Callable[[str, str], Path]) -> None:
    opened = InterpreterRuntime(images("GRAYSCALE", "GRAYSCALE"))
    (record,) = opened.inputs
    assert (record.shape, record.dtype, record.color_order) == ((1, 4, 5, 1), "uint8", None)
    np.testing.assert_array_equal(opened.run({"image": PIXELS[..., :1]})["out"], 255 - PIXELS[..., :1])


@pytest.fixture
def on_macos(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Any]], list[dict[str, Any]]]:
    """Pretend to be on macOS, where a loaded model answers as it is told; what it was asked is kept."""
    real = ct.models.MLModel

    def pretend(answer: Callable[..., Any]) -> list[dict[str, Any]]:
        asked: list[dict[str, Any]] = []

        def predict(given: dict[str, Any]) -> dict[str, Any]:
            asked.append(given)
            return dict(answer(**given))

        def loaded(path: str, skip_model_load: bool = False, compute_units: Any = None) -> Any:
            if skip_model_load:
                return real(path, skip_model_load=True)
            assert compute_units is ct.ComputeUnit.CPU_ONLY
            return SimpleNamespace(predict=predict)

        monkeypatch.setattr(ct.models, "MLModel", loaded)
        monkeypatch.setattr(runtime, "sys", SimpleNamespace(platform="darwin"))
        return asked

    return pretend


def test_on_macos_core_ml_comes_first_and_the_interpreter_checks_it(tensors: Path, on_macos: Any) -> None:
    asked = on_macos(lambda x: {"out0": np.maximum(x, 0) + np.float32(0.25)})
    core_ml, interpreter = open_all(tensors)
    assert [core_ml.name, interpreter.name] == ["Core ML (CPU)", "reference interpreter"]
    assert isinstance(core_ml, CoreMLRuntime)
    assert core_ml.inputs == interpreter.inputs
    assert core_ml.outputs == interpreter.outputs
    difference = core_ml.run({"x": X})["out0"] - interpreter.run({"x": X})["out0"]
    np.testing.assert_allclose(difference, 0.25, atol=1e-6)
    np.testing.assert_array_equal(asked[0]["x"], X)
    assert isinstance(open_artifact(tensors), CoreMLRuntime)
    with pytest.raises(ArtifactError, match="does not fit"):
        core_ml.run({"x": X[:1]})


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_on_macos_images_go_in_and_out_as_pillow_has_them(mode: str, images: Any, on_macos: Any) -> None:
    pillow = pytest.importorskip("PIL.Image")
    path = images("RGB", "RGB")

    def inverted(image: Any) -> dict[str, Any]:
        return {"out": pillow.fromarray(np.clip([255, 245, 235] - np.asarray(image, float), 0, 255).astype("u1"))}

    asked = on_macos(lambda image: {name: value.convert(mode) for name, value in inverted(image).items()})
    core_ml, interpreter = open_all(path)
    given = {"image": PIXELS}
    np.testing.assert_array_equal(core_ml.run(given)["out"], interpreter.run(given)["out"])
    assert asked[0]["image"].mode == "RGB"
    assert asked[0]["image"].size == (5, 4)


def test_on_macos_a_grey_image_is_one_plane(images: Any, on_macos: Any) -> None:
    pillow = pytest.importorskip("PIL.Image")
    path = images("GRAYSCALE", "GRAYSCALE")
    asked = on_macos(lambda image: {"out": pillow.fromarray(255 - np.asarray(image))})
    core_ml, interpreter = open_all(path)
    given = {"image": PIXELS[..., :1]}
    np.testing.assert_array_equal(core_ml.run(given)["out"], interpreter.run(given)["out"])
    assert asked[0]["image"].mode == "L"

"""Images in and out: pixels of the caller, channels in the order of the program."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch
from interpreter_programs import quiet_conversion

from deploykit.targets.coreml.interpreter import ColorLayout, MilInterpreter

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 5, 3)).astype(np.uint8)
GREY = PIXELS[:, :, :1]


class Scaled(torch.nn.Module):
    """What makes some values negative and some above 255, and tells the channels apart."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("shift", torch.tensor([-90.0, 10.25, 40.0])[:channels].reshape(1, -1, 1, 1).clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 1.7 + self.shift


def scaled(pixels: np.ndarray) -> np.ndarray:
    return (pixels * np.float32(1.7) + np.float32([-90, 10.25, 40])[: pixels.shape[-1]]).astype(np.float32)


def written(path: Path, given: Any, returned: Any, channels: int, target: str = "iOS15") -> MilInterpreter:
    with quiet_conversion():
        exported = torch.export.export(Scaled(channels), (torch.rand(1, channels, 4, 5),)).run_decompositions({})
        ct.convert(
            exported,
            inputs=[given],
            outputs=[returned],
            compute_precision=ct.precision.FLOAT32,
            minimum_deployment_target=getattr(ct.target, target),
        ).save(str(path))
    return MilInterpreter(path)


def image(layout: str, channels: int = 3, **more: Any) -> Any:
    return ct.ImageType(name="image", shape=(1, channels, 4, 5), color_layout=getattr(ct.colorlayout, layout), **more)


@pytest.mark.parametrize("layout", ["RGB", "BGR"])
def test_an_image_arrives_in_the_layout_of_the_program(layout: str, tmp_path: Path) -> None:
    given = image(layout, scale=1 / 64, bias=[-1.0, -0.5, 0.25])
    interpreter = written(tmp_path / "image.mlpackage", given, ct.TensorType(name="out"), 3)
    (tensor,) = interpreter.inputs
    assert (tensor.shape, tensor.dtype, tensor.color) == ((4, 5, 3), "uint8", ColorLayout(layout.lower()))
    ordered = PIXELS if layout == "RGB" else PIXELS[..., ::-1]
    expected = scaled(ordered / 64 + [-1.0, -0.5, 0.25]).transpose(2, 0, 1)[None]
    np.testing.assert_allclose(interpreter.run({"image": PIXELS})["out"], expected, atol=1e-4)
    wrong = interpreter.run({"image": np.ascontiguousarray(PIXELS[..., ::-1])})["out"]
    assert np.abs(wrong - expected).max() > 0.1


def test_a_grey_image_has_one_channel(tmp_path: Path) -> None:
    given = image("GRAYSCALE", 1, scale=1 / 64, bias=-0.5)
    interpreter = written(tmp_path / "grey.mlpackage", given, ct.TensorType(name="out"), 1)
    expected = scaled(GREY / 64 - 0.5).transpose(2, 0, 1)[None]
    np.testing.assert_allclose(interpreter.run({"image": GREY})["out"], expected, atol=1e-4)


def test_a_grey_image_of_halves_keeps_its_fractions(tmp_path: Path) -> None:
    given = image("GRAYSCALE_FLOAT16", 1)
    returned = ct.ImageType(name="out", color_layout=ct.colorlayout.GRAYSCALE_FLOAT16)
    interpreter = written(tmp_path / "grey.mlpackage", given, returned, 1, "iOS16")
    assert [(tensor.dtype, tensor.color) for tensor in (*interpreter.inputs, *interpreter.outputs)] == [
        ("float16", ColorLayout.GRAYSCALE)
    ] * 2
    halves = (GREY / 64).astype(np.float16)
    found = interpreter.run({"image": halves})["out"]
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, scaled(halves.astype(np.float32)), atol=0.1)


@pytest.mark.parametrize("layout", ["RGB", "BGR", "GRAYSCALE"])
def test_an_image_output_is_rounded_and_limited_to_eight_bits(layout: str, tmp_path: Path) -> None:
    channels = 1 if layout == "GRAYSCALE" else 3
    pixels = PIXELS[:, :, :channels]
    returned = ct.ImageType(name="out", color_layout=getattr(ct.colorlayout, layout))
    interpreter = written(tmp_path / "out.mlpackage", image(layout, channels), returned, channels)
    (tensor,) = interpreter.outputs
    assert (tensor.shape, tensor.dtype, tensor.color) == ((4, 5, channels), "uint8", ColorLayout(layout.lower()))
    ordered = pixels[..., ::-1] if layout == "BGR" else pixels
    values = scaled(ordered)
    expected = np.clip(np.round(values), 0, 255).astype(np.uint8)
    found = interpreter.run({"image": pixels})["out"]
    np.testing.assert_array_equal(found, expected[..., ::-1] if layout == "BGR" else expected)
    assert values.min() < -1
    assert values.max() > 256
    raw = [value.value for value in interpreter.trace({"image": pixels}) if value.name == "out"]
    np.testing.assert_allclose(raw[0], values.transpose(2, 0, 1)[None], atol=1e-3)

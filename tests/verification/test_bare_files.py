"""Files that somebody else made with the targets' own converters: other names, layouts, types and outputs."""

from __future__ import annotations

from dataclasses import replace

import coremltools as ct
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from verification_cases import HEIGHT, SUFFIXES, WIDTH, bare, convert

from deploykit import verify_artifact
from deploykit.errors import ArtifactError, UsageError
from deploykit.verification import Choices
from deploykit.verification.records import OutputForm, ProbeVerdict
from deploykit.vocab import InputKind, Layout, Target

FULL = pytest.mark.full
PHOTO = torch.zeros(1, 3, HEIGHT, WIDTH)
PRIOR = torch.zeros(1, 1, HEIGHT, WIDTH)


class ChannelsLast(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class Probabilities(nn.Module):
    def __init__(self, network, foreground=False):
        super().__init__()
        self.network, self.foreground = network, foreground

    def forward(self, x):
        found = torch.softmax(self.network(x), 1)
        return found[:, 1:] if self.foreground else found


class FromPixels(nn.Module):
    """Takes RGB pixels from 0 to 255 as floats, at any size, and brings them to the network's size."""

    def __init__(self, network, spec, mode="bilinear"):
        super().__init__()
        self.network, self.mode = network, mode
        self.register_buffer("mean", torch.tensor(spec.mean).reshape(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(spec.scale).reshape(1, 3, 1, 1))

    def forward(self, x):
        if self.mode == "align":
            x = F.interpolate(x, (HEIGHT, WIDTH), mode="bilinear", align_corners=True)
        elif self.mode == "letterbox":
            x = F.pad(F.interpolate(x, (HEIGHT, 48), mode="bilinear"), (8, 8), value=128.0)
        elif x.shape[2:] != (HEIGHT, WIDTH):
            x = F.interpolate(x, (HEIGHT, WIDTH), mode="bilinear", align_corners=False)
        return self.network((x - self.mean) * self.scale)


def verify(case, path, **options):
    return verify_artifact(path, recipe=case.recipe_path, **options)


@pytest.mark.parametrize("target", [Target.ONNX, Target.COREML, pytest.param(Target.TFLITE, marks=FULL)])
def test_the_converters_own_names(case, tmp_path, target):
    path = convert(target, case().network.module, (PHOTO,), tmp_path / f"net{SUFFIXES[target]}")
    one = verify(case(), path)
    assert one.passed, one.findings
    (binding,) = one.inputs
    assert binding.file_input != "photo"
    assert (binding.input, binding.kind) == ("photo", InputKind.TENSOR)
    assert one.runtimes[0].outputs[0].file_output != "scores"


@pytest.mark.parametrize("target", [Target.ONNX, pytest.param(Target.TFLITE, marks=FULL)])
def test_channels_last(case, tmp_path, target):
    module = ChannelsLast(case().network.module)
    path = convert(target, module, (PHOTO.permute(0, 2, 3, 1).contiguous(),), tmp_path / f"last{SUFFIXES[target]}")
    one = verify(case(), path)
    assert one.passed, one.findings
    assert one.inputs[0].layout is Layout.NHWC
    assert one.runtimes[0].outputs[0].layout is Layout.NHWC


def test_a_dynamic_batch_gets_the_shape_of_the_recipe(case, tmp_path):
    batch = {"x": {0: torch.export.Dim("batch", min=1, max=8)}}
    module = case().network.module
    path = convert(Target.ONNX, module, (torch.zeros(2, 3, HEIGHT, WIDTH),), tmp_path / "b.onnx", dynamic_shapes=batch)
    one = verify(case(), path)
    assert one.passed, one.findings
    assert one.inputs[0].shape == (1, 3, HEIGHT, WIDTH)


@pytest.mark.parametrize(
    ("foreground", "form"), [(False, OutputForm.SOFTMAX), pytest.param(True, OutputForm.FOREGROUND, marks=FULL)]
)
def test_probabilities_are_recognised_and_said(case, tmp_path, foreground, form):
    module = Probabilities(case().network.module, foreground)
    one = verify(case(), convert(Target.ONNX, module, (PHOTO,), tmp_path / "p.onnx"))
    assert one.passed, one.findings
    output = one.runtimes[0].outputs[0]
    assert output.form is form
    assert output.comparison.tolerance.max_abs_error == pytest.approx(0.5e-4)
    assert any("probabilit" in note and "softmax" in note for note in one.notes)


def test_two_inputs_and_some_outputs(case, tmp_path):
    class OnlyScores(nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, prior, x):
            return self.network(x, prior)[0]

    prior = case("WithPrior")
    path = convert(
        Target.ONNX, OnlyScores(prior.network.module), (PRIOR, PHOTO), tmp_path / "some.onnx", input_names=["a", "b"]
    )
    one = verify(prior, path)
    assert one.passed, one.findings
    assert {item.input: item.file_input for item in one.inputs} == {"photo": "b", "prior": "a"}
    assert any("edge was not compared" in note for note in one.notes)


def test_inputs_that_nothing_tells_apart_have_to_be_named(case, tmp_path):
    alike = case("TwoAlike")
    names = {"input_names": ["a", "b"], "output_names": ["first", "next"]}
    path = convert(Target.ONNX, alike.network.module, (PHOTO, PHOTO.clone()), tmp_path / "alike.onnx", **names)
    with pytest.raises(UsageError, match="which input") as caught:
        verify(alike, path)
    assert "a [1, 3, 48, 64], b [1, 3, 48, 64]" in caught.value.found
    assert "--input-name photo=a" in caught.value.next_step
    inputs = Choices(input_names={"photo": "a", "second": "b"})
    with pytest.raises(UsageError, match="which output"):
        verify(alike, path, choices=inputs)
    stated = replace(inputs, output_names={"scores": "first", "other": "next"})
    assert verify(alike, path, choices=stated).passed
    crossed = replace(inputs, output_names={"scores": "next", "other": "first"})
    assert not verify(alike, path, choices=crossed).passed
    with pytest.raises(UsageError, match="no such name"):
        verify(alike, path, choices=Choices(input_names={"photo": "c"}))


def test_a_float_input_that_takes_pixels(case, tmp_path):
    module = FromPixels(case().network.module, case().recipe.file.inputs[0])
    path = convert(Target.ONNX, module, (PHOTO,), tmp_path / "pixels.onnx")
    one = verify(case(), path)
    assert not one.passed
    assert any("--input-kind image" in note for note in one.notes)
    told = verify(case(), path, choices=Choices(input_kind=InputKind.IMAGE))
    assert told.passed, told.findings
    assert told.probe.verdict is ProbeVerdict.AGREES


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        pytest.param("bilinear", "", marks=FULL),
        pytest.param("align", "the resize aligns the corners (align_corners)", marks=FULL),
        ("letterbox", "the picture is letterboxed with a border of 128"),
    ],
)
def test_a_file_that_resizes_by_itself(case, tmp_path, mode, name):
    module = FromPixels(case().network.module, case().recipe.file.inputs[0], mode)
    path = convert(Target.ONNX, module, (torch.zeros(1, 3, 60, 60),), tmp_path / "resize.onnx")
    one = verify(case(), path, choices=Choices(input_kind=InputKind.IMAGE))
    assert any("resizes by itself" in note for note in one.notes)
    assert [each.name for each in one.probe.explanations] == ([name] if name else []), one.probe
    assert one.passed is not bool(name)


@FULL
def test_a_file_for_another_size(case, tmp_path):
    path = convert(Target.ONNX, case().network.module, (torch.zeros(1, 3, 32, 40),), tmp_path / "small.onnx")
    one = verify(case(), path)
    assert one.passed, one.findings
    assert one.inputs[0].shape == (1, 3, 32, 40)
    assert any("another size than the recipe" in note for note in one.notes)


def test_an_image_input_of_core_ml(case, tmp_path):
    spec = case().recipe.file.inputs[0]
    path = convert(
        Target.COREML,
        FromPixels(case().network.module, spec),
        (PHOTO,),
        tmp_path / "image.mlpackage",
        inputs=[ct.ImageType(name="picture", shape=tuple(PHOTO.shape), color_layout=ct.colorlayout.BGR)],
    )
    one = verify(case(), path)
    assert one.passed, one.findings
    assert one.probe.verdict is ProbeVerdict.AGREES
    assert one.inputs[0].kind is InputKind.IMAGE


def test_a_file_of_another_network_is_refused_with_both_sides(case, exported, tmp_path):
    path = bare(exported(Target.ONNX, "WithPrior"), tmp_path)
    with pytest.raises(ArtifactError, match="does not take what the recipe gives") as caught:
        verify(case(), path)
    assert "prior float32 [1, 1, 48, 64]" in caught.value.found
    assert "photo [1, 3, 48, 64]" in caught.value.expected
    assert np.prod(PRIOR.shape) == HEIGHT * WIDTH


def test_without_a_manifest_something_has_to_say_what_it_is(exported, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="nothing says what it was made from"):
        verify_artifact(bare(exported(Target.ONNX), tmp_path))

"""RCRNet in every variant, for images and for video, in every format: random weights where none are bundled."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from small_case import randomize
from torch import nn

from deploykit import api
from deploykit.lowering import ExportOptions
from deploykit.network import LoadedNetwork, build_network
from deploykit.pipeline import prepare_export
from deploykit.recipe import load_recipe
from deploykit.verify.compare import compare
from deploykit.verify.reference import as_tensors
from deploykit.verify.reparam import verify_reparam
from deploykit.verify.samples import draw_samples
from deploykit.vocab import FLOAT_PRECISIONS, InputKind, Precision, Target

FULL = pytest.mark.full
IMAGES = ("rcrnet-1", "rcrnet-2", "rcrnet-3")
VIDEOS = ("rcrnet-1-video", "rcrnet-2-video", "rcrnet-3-video")
# What a video recipe is exported at, its prior with it.
SIZE = (96, 64)


def network_of(name: str, size: tuple[int, int] = (224, 224)) -> LoadedNetwork:
    """The network of a recipe at ``size`` with random weights, its values on the scale of a trained network's.

    Statistics of BatchNorm are those of a few portraits, moved at random; a variance far below the others would
    blow up the rounding of a channel that carries nothing.
    """
    recipe = load_recipe(name)
    network = build_network(recipe)
    randomize(network)
    small = recipe.with_size(64, 64)
    samples = [as_tensors(sample, small, torch.float32) for sample in draw_samples(small, portraits=3)]
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    generator = torch.Generator().manual_seed(1)
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    with torch.no_grad():
        network.train()(*(torch.cat(values) for values in zip(*samples, strict=True)))
        for norm in norms:
            norm.running_mean += 0.3 * norm.running_var.sqrt() * torch.randn(norm.num_features, generator=generator)
            norm.running_var *= torch.empty(norm.num_features).uniform_(0.6, 1.6, generator=generator)
            norm.running_var.clamp_(min=0.3 * float(norm.running_var.mean()))
    return LoadedNetwork(recipe.with_size(*size), network.eval(), recipe.path, "0" * 64, ())


@pytest.fixture(scope="session")
def exporter():
    @cache
    def prepared(name: str, size: tuple[int, int] = (224, 224)):
        network = network_of(name, size)
        return prepare_export(network, draw_samples(network.recipe, portraits=1))

    return prepared


@FULL
def test_a_video_network_is_a_file_with_two_inputs(exporter, tmp_path):
    prepared = exporter("rcrnet-video", SIZE)
    artifact = prepared.write(Target.ONNX, ExportOptions(input_kind=InputKind.IMAGE), tmp_path)
    assert {record.name: (record.shape, record.dtype) for record in artifact.inputs} == {
        "image": ((1, 3, *SIZE), "uint8"),
        "prior": ((1, 1, *SIZE), "float32"),
    }
    assert [record.name for record in artifact.outputs] == ["logits"]
    # The bound is tight enough to see that the frame before is left out.
    sample, reference = prepared.samples[-1], prepared.reference[-1]
    pixels = sample.pixels["image"].transpose(2, 0, 1)[None]
    found = {}
    for name, prior in (("given", sample.tensors["prior"]), ("left out", np.zeros((1, 1, *SIZE), np.float32))):
        (logits,) = api.run(artifact, {"image": np.ascontiguousarray(pixels), "prior": prior}).values()
        tolerance = prepared.network.recipe.file.tolerances.of(Precision.FP32)
        found[name] = compare("logits", [logits], [reference["logits"]], tolerance, classes=2)
    assert found["given"].passed
    assert not found["left out"].passed
    assert found["left out"].wrong_pixels


@FULL
@pytest.mark.parametrize("precision", FLOAT_PRECISIONS)
@pytest.mark.parametrize("target", list(Target))
@pytest.mark.parametrize("name", IMAGES)
def test_every_variant_for_images(exporter, tmp_path, name, target, precision):
    assert exporter(name).write(target, ExportOptions(precision=precision), tmp_path).passed


@FULL
@pytest.mark.parametrize("precision", FLOAT_PRECISIONS)
@pytest.mark.parametrize("target", list(Target))
@pytest.mark.parametrize(
    ("name", "size", "input_kind"),
    [
        *((name, SIZE, InputKind.IMAGE) for name in VIDEOS),
        *(("rcrnet-video", (224, 224), input_kind) for input_kind in InputKind),
    ],
)
def test_every_variant_for_video(exporter, tmp_path, name, size, input_kind, target, precision):
    artifact = exporter(name, size).write(target, ExportOptions(precision=precision, input_kind=input_kind), tmp_path)
    assert artifact.passed
    records = {record.name: record for record in artifact.inputs}
    assert set(records) == {"image", "prior"}
    assert (records["prior"].shape, records["prior"].dtype) == ((1, 1, *size), "float32")
    assert records["image"].dtype == ("uint8" if input_kind is InputKind.IMAGE else "float32")


@FULL
def test_the_self_test_catches_every_damage_to_a_video_network():
    network = network_of("rcrnet-video", SIZE)
    result = verify_reparam(network, draw_samples(network.recipe, noise=0, portraits=1), self_test=True)
    assert result.passed, result.findings
    assert len(result.injections) == 4 * 87
    assert {one.outcome for one in result.injections} == {"caught"}

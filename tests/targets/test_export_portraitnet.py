"""PortraitNet with random weights: transposed convolutions, bilinear decoder and a prior in every format."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from deploykit import api
from deploykit.lowering import ExportOptions
from deploykit.network import LoadedNetwork, build_network
from deploykit.pipeline import Exporter, prepare_export
from deploykit.recipe import load_recipe
from deploykit.records import Artifact
from deploykit.verify.compare import compare
from deploykit.verify.reference import reference_outputs
from deploykit.verify.samples import Sample, draw_samples
from deploykit.vocab import InputKind, Layout, Precision, Target

FULL = pytest.mark.full
RECIPES = ("portraitnet", "portraitnet-bilinear", "portraitnet-no-edge", "portraitnet-video")
SMALL, WHOLE = 64, 224
TOUCHED = "transit4.block.2"


def settle(network: nn.Module, samples: tuple[Sample, ...], seed: int = 0) -> None:
    """Give ``network`` a random gamma and beta, and statistics that are near those of its activations, not equal.

    With statistics drawn blindly the sums of 17 residual blocks reach millions, far beyond half precision.
    """
    generator = torch.Generator().manual_seed(seed)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
        with torch.no_grad():
            norm.weight.uniform_(0.5, 1.5, generator=generator)
            norm.weight[::2] *= -1
            norm.bias.normal_(0, 0.5, generator=generator)
    with torch.no_grad():
        for sample in samples:
            network.train()(*(torch.from_numpy(value) for value in sample.tensors.values()))
    network.eval()
    for norm in norms:
        norm.running_mean += 0.1 * norm.running_var.sqrt() * torch.randn(norm.num_features, generator=generator)
        norm.running_var *= torch.empty(norm.num_features).uniform_(0.8, 1.25, generator=generator)


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> Callable[[str, int], LoadedNetwork]:
    folder = tmp_path_factory.mktemp("portraitnet")

    @cache
    def loaded(name: str, size: int) -> LoadedNetwork:
        recipe = load_recipe(name)
        module = build_network(recipe)
        settle(module, draw_samples(recipe))
        path = folder / f"{name}-{size}.pt"
        torch.save(module.state_dict(), path)
        return api.load(recipe.with_size(size, size), checkpoint=path)

    return loaded


@pytest.fixture(scope="module")
def exporter(network) -> Callable[[str, int], Exporter]:
    @cache
    def prepared(name: str, size: int) -> Exporter:
        loaded = network(name, size)
        return prepare_export(loaded, draw_samples(loaded.recipe))

    return prepared


def assert_equivalent_and_tight(prepared: Exporter, artifact: Artifact) -> None:
    """The file passed, and the same bounds refuse a network that lacks one BatchNorm's mean."""
    assert artifact.passed
    (output,) = artifact.comparisons
    assert (output.output, output.samples) == ("logits", 3)
    damaged = copy.deepcopy(prepared.network.module)
    damaged.get_submodule(TOUCHED).running_mean.zero_()
    wrong = reference_outputs(damaged, prepared.network.recipe, prepared.samples)
    twin = compare(
        "logits", [one["logits"] for one in wrong], [one["logits"] for one in prepared.reference], output.tolerance
    )
    assert not twin.passed
    # Half precision it is: fp32 stays below this.
    assert (output.relative_l2 > 1e-4) is (artifact.plan.precision is Precision.FP16)


@FULL
@pytest.mark.parametrize("target", [Target.ONNX, Target.TFLITE])
def test_fp32_at_a_small_size(exporter, target, tmp_path):
    prepared = exporter("portraitnet", SMALL)
    artifact = prepared.write(target, ExportOptions(), tmp_path)
    assert_equivalent_and_tight(prepared, artifact)
    assert [record.name for record in artifact.outputs] == ["logits"]
    fired = {report.name: len(report.fired) for report in artifact.passes}
    assert (fired["drop_unused_outputs"], fired["fold_batch_norm"], fired["merge_branches"]) == (1, 77, 0)


@FULL
@pytest.mark.parametrize(
    "options",
    [
        ExportOptions(),
        ExportOptions(precision=Precision.FP16),
        ExportOptions(precision=Precision.FP16, input_kind=InputKind.IMAGE),
    ],
    ids=["fp32", "fp16", "fp16 image"],
)
@pytest.mark.parametrize("target", list(Target))
@pytest.mark.parametrize("name", RECIPES)
def test_the_whole_matrix(exporter, name, target, options, tmp_path):
    prepared = exporter(name, WHOLE)
    artifact = prepared.write(target, options, tmp_path)
    assert_equivalent_and_tight(prepared, artifact)
    assert {record.name for record in artifact.inputs} == {item.name for item in prepared.network.recipe.file.inputs}


@FULL
@pytest.mark.parametrize("name", RECIPES)
def test_channels_last(exporter, name, tmp_path):
    prepared = exporter(name, WHOLE)
    artifact = prepared.write(Target.TFLITE, ExportOptions(layout=Layout.NHWC), tmp_path)
    assert_equivalent_and_tight(prepared, artifact)
    (logits,) = artifact.outputs
    assert logits.shape == (1, WHOLE, WHOLE, 2)


@FULL
@pytest.mark.parametrize("target", list(Target))
def test_the_file_reads_the_prior(exporter, target, tmp_path):
    prepared = exporter("portraitnet-video", SMALL)
    artifact = prepared.write(target, ExportOptions(), tmp_path)
    given = dict(prepared.samples[1].tensors)
    reference = prepared.reference[1]["logits"]
    (logits,) = api.run(artifact, given).values()
    (without,) = api.run(artifact, {**given, "prior": np.zeros_like(given["prior"])}).values()
    assert np.abs(logits - reference).max() < 1e-4
    assert np.abs(without - reference).max() > 1e-2


@FULL
def test_every_damage_to_a_fold_is_caught(network):
    found = api.verify_reparam(network("portraitnet", SMALL), self_test=True)
    assert found.passed
    assert len(found.injections) == 4 * 77
    assert {injection.outcome for injection in found.injections} == {"caught"}

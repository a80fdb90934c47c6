"""MobileNetV3 with SAPPM, random weights: grid_sample, pooling that does not divide and "same" padding everywhere."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import nn

from deploykit import api
from deploykit.lowering import ExportOptions
from deploykit.network import LoadedNetwork, build_network
from deploykit.pipeline import Exporter, prepare_export
from deploykit.recipe import load_recipe
from deploykit.records import Artifact
from deploykit.targets.coreml.interpreter import MilInterpreter
from deploykit.verify.compare import compare
from deploykit.verify.reference import reference_outputs
from deploykit.verify.samples import Sample, draw_samples
from deploykit.vocab import FLOAT_PRECISIONS, InputKind, Layout, Precision, Target

FULL = pytest.mark.full
NAME = "mobilenetv3-sappm"
# At an eighth of these the pools of 3 and 6 do not divide; an odd size pads the strided convolutions otherwise.
SMALL, ODD, WHOLE = (64, 64), (75, 101), ((512, 512), (224, 224))


def settle(network: nn.Module, samples: tuple[Sample, ...], seed: int = 0) -> None:
    """Give ``network`` a random gamma and beta, and statistics that are near those of its activations, not equal."""
    generator = torch.Generator().manual_seed(seed)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
        with torch.no_grad():
            norm.weight.uniform_(0.5, 1.5, generator=generator)
            norm.weight[::2] *= -1
            norm.bias.normal_(0, 0.5, generator=generator)
    with torch.no_grad():
        # A flow of several pixels, so that warping matters, and logits that differ.
        network.decode_head.fuse4.flow_make.weight *= 8
        network.decode_head.conv_seg.weight *= 4
        # One batch: the pool to 1x1 leaves a single image without a variance.
        network.train()(torch.cat([torch.from_numpy(sample.tensors["image"]) for sample in samples]))
    network.eval()
    for norm in norms:
        norm.running_mean += 0.1 * norm.running_var.sqrt() * torch.randn(norm.num_features, generator=generator)
        norm.running_var *= torch.empty(norm.num_features).uniform_(0.8, 1.25, generator=generator)


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> Callable[[tuple[int, int]], LoadedNetwork]:
    folder = tmp_path_factory.mktemp("sappm")

    @cache
    def loaded(size: tuple[int, int]) -> LoadedNetwork:
        recipe = load_recipe(NAME).with_size(*size)
        module = build_network(recipe)
        settle(module, draw_samples(recipe.with_size(224, 224)))
        path = folder / f"{size[0]}x{size[1]}.pt"
        torch.save(module.state_dict(), path)
        return api.load(recipe, checkpoint=path)

    return loaded


@pytest.fixture(scope="module")
def exporter(network) -> Callable[[tuple[int, int]], Exporter]:
    @cache
    def prepared(size: tuple[int, int]) -> Exporter:
        loaded = network(size)
        return prepare_export(loaded, draw_samples(loaded.recipe))

    return prepared


def drop_a_mean(network: nn.Module) -> None:
    network.get_submodule("decode_head.neck.scales.3.1.bn").running_mean.zero_()


def drop_a_flow(network: nn.Module) -> None:
    network.get_submodule("decode_head.fuse4.flow_make").weight.data[2:] = 0


def pool_otherwise(network: nn.Module) -> None:
    network.get_submodule("decode_head.neck.scales.3")[0].output_size = 5


def assert_equivalent_and_tight(prepared: Exporter, artifact: Artifact) -> None:
    """The file passed, and the same bounds refuse a mean that is missing, a flow that is, and another pooling."""
    assert artifact.passed
    (output,) = artifact.comparisons
    assert (output.output, output.samples) == ("logits", 3)
    for mistake in (drop_a_mean, drop_a_flow, pool_otherwise):
        damaged = copy.deepcopy(prepared.network.module)
        mistake(damaged)
        wrong = reference_outputs(damaged, prepared.network.recipe, prepared.samples)
        truth = [one["logits"] for one in prepared.reference]
        assert not compare("logits", [one["logits"] for one in wrong], truth, output.tolerance).passed, mistake
    # Half precision it is: fp32 stays below this.
    assert (output.relative_l2 > 1e-4) is (artifact.plan.precision is Precision.FP16)


@pytest.mark.parametrize(
    "target", [target if target is Target.COREML else pytest.param(target, marks=FULL) for target in Target]
)
def test_fp32_at_a_small_size(exporter, target, tmp_path):
    prepared = exporter(SMALL)
    artifact = prepared.write(target, ExportOptions(), tmp_path)
    assert_equivalent_and_tight(prepared, artifact)
    assert [record.name for record in artifact.outputs] == ["logits"]
    fired = {report.name: len(report.fired) for report in artifact.passes}
    assert (fired["drop_unused_outputs"], fired["fold_batch_norm"], fired["merge_branches"]) == (2, 24, 0)
    assert fired["adaptive_pooling"] == 3
    assert fired.get("grid_sample_by_gather", 2) == 2
    if target is Target.COREML:
        assert MilInterpreter(artifact.path).unknown_operations() == ()


@FULL
@pytest.mark.parametrize("precision", FLOAT_PRECISIONS)
@pytest.mark.parametrize("target", list(Target))
@pytest.mark.parametrize("size", [ODD, *WHOLE])
def test_the_whole_matrix(exporter, size, target, precision, tmp_path):
    prepared = exporter(size)
    assert_equivalent_and_tight(prepared, prepared.write(target, ExportOptions(precision=precision), tmp_path))


@FULL
@pytest.mark.parametrize(
    ("target", "options"),
    [
        (Target.COREML, ExportOptions(precision=Precision.FP16, input_kind=InputKind.IMAGE)),
        (Target.COREML, ExportOptions(precision=Precision.FP16, minimum_os="iOS17")),
        (Target.ONNX, ExportOptions(precision=Precision.FP16, input_kind=InputKind.IMAGE, opset=20)),
        (Target.TFLITE, ExportOptions(input_kind=InputKind.IMAGE, layout=Layout.NHWC)),
        (Target.COREAI, ExportOptions(precision=Precision.FP16, input_kind=InputKind.IMAGE)),
    ],
    ids=["coreml image", "coreml iOS17", "onnx image opset 20", "tflite image NHWC", "coreai image"],
)
def test_other_kinds_of_file(exporter, target, options, tmp_path):
    prepared = exporter(SMALL)
    assert_equivalent_and_tight(prepared, prepared.write(target, options, tmp_path))


@FULL
def test_the_folding_is_verified_and_damage_to_it_is_caught(network):
    found = api.verify_reparam(network((224, 224)), self_test=True)
    assert found.passed, found.findings
    assert {one.outcome for one in found.injections} <= {"caught", "neutral"}
    assert sum(one.outcome == "caught" for one in found.injections) > 80

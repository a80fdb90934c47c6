"""ELB in both channel decreasing rates with random weights: dilated 1x3 and 3x1 convolutions in every format."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from small_case import randomize

from deploykit import api
from deploykit.lowering import ExportOptions
from deploykit.models import elb
from deploykit.network import LoadedNetwork, build_network
from deploykit.pipeline import Exporter, prepare_export
from deploykit.recipe import Recipe, load_recipe
from deploykit.verify.samples import draw_samples
from deploykit.vocab import FLOAT_PRECISIONS, InputKind, Precision, Target

FULL = pytest.mark.full
# At 1/8 of this size the farthest taps, 16 apart, still meet values and not only padding.
SMALL = 160
TOUCHED = "level3.1.pair2.row.weight"


def _for_three_blocks(recipe: Recipe) -> Recipe:
    expected = recipe.file.expected.model_copy(update={"fold_batch_norm": 4 * 3})
    return Recipe(recipe.file.model_copy(update={"expected": expected}), recipe.path, recipe.sha256)


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> Callable[..., LoadedNetwork]:
    """Return ELB with random weights at 512 or at ``SMALL``; ``short`` has three blocks, a third of the cost."""
    folder = tmp_path_factory.mktemp("elb")

    @cache
    def loaded(name: str, *, small: bool = False, short: bool = False, damage: bool = False) -> LoadedNetwork:
        recipe = load_recipe(name)
        if small:
            recipe = recipe.with_size(SMALL, SMALL)
        with pytest.MonkeyPatch.context() as patch:
            if short:
                recipe = _for_three_blocks(recipe)
                patch.setattr(elb, "LEVEL2_BLOCKS", 1)
                patch.setattr(elb, "LEVEL3_DILATIONS", (4, 16))
            module = build_network(recipe)
            randomize(module)
            if damage:
                module.get_parameter(TOUCHED).data[..., 0].zero_()
            path = folder / f"{name}-{small}-{short}-{damage}.pt"
            torch.save(module.state_dict(), path)
            return api.load(recipe, checkpoint=path)

    return loaded


@pytest.fixture(scope="module")
def exporter(network) -> Callable[..., Exporter]:
    @cache
    def prepared(name: str, *, short: bool = False) -> Exporter:
        loaded = network(name, small=short, short=short)
        return prepare_export(loaded, draw_samples(loaded.recipe))

    return prepared


# Its convolutions alone are converted to TFLite by make test as well: tests/targets/test_hard_operators.py.
@pytest.mark.parametrize(
    "target", [target if target is Target.COREML else pytest.param(target, marks=FULL) for target in Target]
)
def test_a_short_elb_is_equivalent_in_fp32(exporter, network, target, tmp_path):
    prepared = exporter("elb-dr4", short=True)
    artifact = prepared.write(target, ExportOptions(), tmp_path)
    assert artifact.passed
    fired = {report.name: len(report.fired) for report in artifact.passes}
    assert (fired["fold_batch_norm"], fired["merge_branches"]) == (12, 0)
    # One tap of the last dilated 1x3 convolution is enough to be seen.
    sample, truth = prepared.samples[1].tensors["image"], prepared.reference[1]["logits"]
    with torch.no_grad():
        damaged = network("elb-dr4", small=True, short=True, damage=True).module(torch.from_numpy(sample)).numpy()
    bound = artifact.comparisons[0].tolerance.relative_l2
    assert np.linalg.norm(damaged - truth) > 100 * bound * np.linalg.norm(truth)


def test_batch_norms_after_a_concatenation_stay_and_are_listed(exporter):
    report = exporter("elb-dr4", short=True).deploy.report("fold_batch_norm")
    assert [skip.module for skip in report.skipped] == ["down1.bn", "down2.bn", "down3.bn"]
    assert {skip.reason for skip in report.skipped} == {"no convolution before it: it follows aten.cat.default"}


@FULL
@pytest.mark.parametrize("input_kind", list(InputKind))
@pytest.mark.parametrize("precision", FLOAT_PRECISIONS)
@pytest.mark.parametrize("target", list(Target))
@pytest.mark.parametrize("name", ["elb", "elb-dr4"])
def test_the_whole_matrix_at_the_size_of_the_paper(exporter, name, target, precision, input_kind, tmp_path):
    prepared = exporter(name)
    artifact = prepared.write(target, ExportOptions(precision=precision, input_kind=input_kind), tmp_path)
    assert artifact.passed
    fired = {report.name: len(report.fired) for report in artifact.passes}
    assert (fired["fold_batch_norm"], fired["merge_branches"]) == (52, 0)
    (output,) = artifact.comparisons
    assert output.samples == 3
    # Half precision it is: fp32 stays below what fp16 misses.
    assert (output.relative_l2 < 1e-4) is (precision is Precision.FP32)


@FULL
@pytest.mark.parametrize("name", ["elb", "elb-dr4"])
def test_every_damage_to_a_fold_is_caught(network, name):
    found = api.verify_reparam(network(name, small=True), self_test=True)
    assert found.passed
    assert len(found.injections) == 4 * 52
    assert {injection.outcome for injection in found.injections} == {"caught"}

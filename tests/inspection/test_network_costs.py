"""Costs of networks: a small one counted by hand, and the figures that the papers' networks must have."""

from __future__ import annotations

import pytest
from video_case import write_video_case

from deploykit.api import load
from deploykit.errors import CaptureError, CheckpointError, RecipeError, UsageError
from deploykit.inspection import inspect_network, network_cost
from deploykit.recipe import load_recipe
from deploykit.vocab import Convention

MACS, CONV, PORTRAITNET, MMENGINE = Convention
PIXELS = 32 * 48


@pytest.fixture(scope="module")
def follow(tmp_path_factory):
    return load_recipe(write_video_case(tmp_path_factory.mktemp("video")))


@pytest.fixture(scope="module")
def inspected(follow):
    return inspect_network(follow, convention=MMENGINE)


def test_the_forms_of_a_small_network(inspected):
    # A 3x3 convolution 4 to 6, its BatchNorm, a 1x1 convolution 6 to 3 with bias.
    forms = inspected.cost.forms
    assert [(form.merged, form.outputs) for form in forms] == [
        (False, ("scores", "edge")),
        (False, ("scores",)),
        (True, ("scores", "edge")),
        (True, ("scores",)),
    ]
    assert inspected.cost.exported is forms[-1]
    assert inspected.cost.parameters == 216 + 12 + 21
    assert [form.cost.parameters for form in forms] == [249, 249, 243, 243]
    macs = (216 + 18) * PIXELS
    for form in forms:
        assert form.cost.macs[MACS] == form.cost.macs[CONV] == macs
    assert inspected.cost.macs(MMENGINE, merged=False, every_output=False) == macs + 2 * 6 * PIXELS
    assert inspected.cost.macs(MMENGINE, merged=True, every_output=False) == macs
    # Biases, after folding also that of the first convolution, BatchNorm twice, and ReLU.
    assert inspected.cost.macs(PORTRAITNET, merged=False, every_output=True) == macs + (3 + 2 * 6 + 6) * PIXELS
    assert inspected.cost.macs(PORTRAITNET, merged=True, every_output=True) == macs + (6 + 3 + 6) * PIXELS


def test_the_peak_is_where_twelve_channels_are_alive(inspected):
    training, deploy = (inspected.cost.form(merged=merged, every_output=False).cost.peak for merged in (False, True))
    assert training.size_bytes == deploy.size_bytes == 4 * 12 * PIXELS
    assert (training.module, training.operation) == ("norm", "batch_norm")
    assert deploy.operation == "relu"


def test_a_convention_that_counts_batch_norms_details_the_training_form(inspected, follow):
    assert not inspected.detailed.merged
    assert inspected.detailed.outputs == ("scores",)
    assert [layer.module for layer in inspected.detailed.cost.largest(MMENGINE, 2)] == ["mix", "classify"]


def test_passes_and_contract(inspected, follow):
    reports = {report.name: report for report in inspected.passes}
    assert len(reports["fold_batch_norm"].fired) == 1
    assert reports["drop_unused_outputs"].fired[0].detail == "dropped the output edge"
    image, prior = inspected.inputs
    assert (image.shape, image.color_order, image.resize) == ((1, 3, 32, 48), "bgr", "letterbox, bilinear")
    assert (image.mean, image.scale) == ((104.0, 117.0, 123.0), (0.017, 0.018, 0.019))
    assert image.feedback is None
    assert (prior.color_order, prior.mean, prior.resize, prior.value_range) == (None, None, None, (0.0, 1.0))
    assert prior.feedback == "softmax probability of hair in scores of the frame before; 0.25 at first"
    assert [(out.name, out.shape, out.deployed) for out in inspected.outputs] == [
        ("scores", (1, 3, 32, 48), True),
        ("edge", (1, 1, 32, 48), False),
    ]
    assert inspected.outputs[0].classes == ("background", "hair", "skin")
    assert inspected.checkpoint == follow.checkpoint_path()


def test_another_size_scales_the_cost_and_other_outputs_can_be_counted(follow):
    cost = network_cost(follow, (16, 16), outputs=("edge",))
    assert cost.input_shapes == {"image": (1, 3, 16, 16), "prior": (1, 1, 16, 16)}
    assert cost.exported.outputs == ("edge",)
    assert cost.macs(MACS, merged=True, every_output=False) == (216 + 18) * 256


def test_a_loaded_network_is_inspected_with_its_weights(follow, inspected):
    again = inspect_network(load(follow), convention=MMENGINE)
    assert again == inspected


def test_no_checkpoint_is_needed_for_costs_and_a_missing_one_is_said(tmp_path):
    path = write_video_case(tmp_path)
    (tmp_path / "follow.pt").unlink()
    assert network_cost(path).parameters == 249
    with pytest.raises(CheckpointError):
        inspect_network(load_recipe(path))
    path.write_text(path.read_text("utf-8").replace('[checkpoint]\npath = "follow.pt"', ""), "utf-8")
    found = inspect_network(load_recipe(path))
    assert (found.checkpoint, found.checkpoint_sha256, found.cost.parameters) == (None, None, 249)


def test_what_cannot_be_is_said(follow):
    with pytest.raises(RecipeError, match="no such recipe"):
        network_cost("nosuch")
    with pytest.raises(UsageError, match="out of range"):
        network_cost(follow, (0, 8))
    with pytest.raises(RecipeError, match="outputs to keep"):
        network_cost(follow, outputs=("nosuch",))


PICKY = """
from video_networks.nets import Follow


class Picky(Follow):
    size_multiple = 16

    def forward(self, image, prior):
        assert image.shape[2] % 16 == 0
        return super().forward(image, prior)
"""


def test_a_size_that_the_network_rejects_is_said_with_those_it_takes(tmp_path):
    path = write_video_case(tmp_path)
    (tmp_path / "video_networks" / "picky.py").write_text(PICKY, "utf-8")
    path.write_text(path.read_text("utf-8").replace("nets:Follow", "picky:Picky"), "utf-8")
    with pytest.raises(CaptureError) as refused:
        network_cost(path, (17, 32))
    assert "multiples of 16" in str(refused.value.next_step)


# Recipe, size, convention, whether merged, whether with every output: what was measured on the public code, or is the
# reading that comes closest to the printed figure.
FIGURES = {
    "sinet": [(224, CONV, False, True, 63_866_208), (224, CONV, True, False, 63_866_208)],
    "portraitnet": [
        (224, CONV, False, True, 325_110_688),
        (224, PORTRAITNET, False, False, 514_761_856),
        (224, MACS, False, False, 361_237_408),
    ],
    "portraitnet-video": [(224, MACS, False, False, 361_237_408 + 32 * 9 * 112 * 112)],
    "mobilenetv3-sappm": [(512, MMENGINE, False, False, 709_248_192), (224, MMENGINE, False, False, 135_874_752)],
    "elb": [(512, MACS, False, True, 3_777_953_792)],
    "rcrnet-1": [(224, CONV, True, True, 159_310_368)],
    "rcrnet-2": [(224, CONV, True, True, 179_038_944)],
    "rcrnet-3": [(224, CONV, True, True, 190_420_000)],
    "rcrnet": [(224, CONV, True, True, 211_352_800)],
}
PARAMETERS = {
    "sinet": (86_910, 86_910),
    "portraitnet": (2_080_904, 2_080_760),
    "portraitnet-video": (2_081_048, 2_081_048),
    "mobilenetv3-sappm": (247_651 + 41_762, 233_730),
    "elb": (657_727, 657_727),
}


@pytest.mark.parametrize(
    "recipe", [pytest.param(name, marks=() if name == "sinet" else pytest.mark.full) for name in FIGURES]
)
def test_the_papers_figures_come_out(recipe):
    costs = {size: network_cost(recipe, (size, size)) for size in {row[0] for row in FIGURES[recipe]}}
    for size, convention, merged, every_output, expected in FIGURES[recipe]:
        assert costs[size].macs(convention, merged=merged, every_output=every_output) == expected
    for cost in costs.values():
        assert all(form.cost.unknown == {} for form in cost.forms)
        if recipe in PARAMETERS:
            found = [cost.form(merged=False, every_output=every).cost.parameters for every in (True, False)]
            assert tuple(found) == PARAMETERS[recipe]


@pytest.mark.full
def test_parameters_with_the_boundary_branch_alone():
    cost = network_cost("mobilenetv3-sappm", (224, 224), outputs=("logits", "boundary"))
    assert cost.form(merged=False, every_output=False).cost.parameters == 247_651

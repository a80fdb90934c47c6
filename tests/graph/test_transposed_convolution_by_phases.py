from __future__ import annotations

import pytest
from form_cases import damaged, same_form_twice
from graph_cases import BOUND, Calls, captured, captured_together, operations, relative_l2, skip_reasons
from torch import Tensor, nn
from torch.nn import functional as F

from deploykit.graph.passes import transposed_convolution_by_phases as rule
from deploykit.graph.passes.transposed_convolution_by_phases import transposed_convolution_by_phases

# Kernel, stride, padding, output padding.
GEOMETRIES = {
    "PortraitNet's": (4, 2, 1, 0),
    "odd kernel": (3, 2, 1, 1),
    "no overlap": (2, 2, 0, 0),
    "beyond the last tap": (2, 2, 0, 1),
    "gaps": (1, 2, 0, 0),
    "stride 3": (5, 3, 2, 0),
    "stride 3, output padding": (5, 3, 1, 2),
    "padding wider than a block": (4, 2, 3, 0),
    "stride 4": (6, 4, 1, 0),
    "not square": ((4, 2), 2, (1, 0), (0, 1)),
}
WIDTHS = {"dense": (4, 3, 1), "grouped": (4, 6, 2), "depthwise": (3, 3, 3), "depthwise, two each": (3, 6, 3)}


@pytest.mark.parametrize("width", WIDTHS)
def test_every_geometry_is_a_convolution_and_a_shuffle(width):
    channels_in, channels_out, groups = WIDTHS[width]
    layers = {
        name: nn.ConvTranspose2d(
            channels_in, channels_out, kernel, stride, padding, further, groups=groups, bias="odd" in name
        )
        for name, (kernel, stride, padding, further) in GEOMETRIES.items()
    }
    shape = (2, channels_in, 5, 7)
    for name, before in captured_together(layers, *shape).items():
        after = same_form_twice(transposed_convolution_by_phases, before, *shape)
        assert operations(after)["conv2d"] == operations(after)["pixel_shuffle"] == 1
        assert operations(after)["conv_transpose2d"] == 0
        if name == "PortraitNet's":
            assert relative_l2(before, damaged(after, "phases"), *shape) > 1e9 * BOUND


def test_a_depthwise_one_is_not_cut_and_a_dense_one_multiplies_no_zeros():
    shape = (1, 8, 6, 6)
    found = {}
    for groups in (1, 8):
        before = captured(nn.Sequential(nn.ConvTranspose2d(8, 8, 4, 2, 1, groups=groups)), *shape)
        after = transposed_convolution_by_phases(before)
        (weight,) = [value for name, value in after.module.named_parameters() if name.endswith("phases")]
        found[groups] = (tuple(weight.shape), operations(after)["slice"])
    assert found == {1: ((32, 8, 2, 2), 2), 8: ((32, 1, 3, 3), 0)}


def test_without_overlap_one_of_the_two_passes_leaves_it():
    for kernel, fires in ((2, False), (3, False), (4, True), (6, True)):
        graph = captured(nn.Sequential(nn.ConvTranspose2d(2, 2, kernel, 2)), 1, 2, 3, 5)
        after = rule.overlapping_transposed_convolution_by_phases(graph)
        assert bool(after.report(rule.OVERLAPPING).fired) is fires
        assert skip_reasons(after, rule.OVERLAPPING) == ([] if fires else [rule.NO_OVERLAP])


def _computed(_: Calls, x: Tensor) -> Tensor:
    return F.conv_transpose2d(x, x[:, :, :2, :2].transpose(0, 1), stride=2, groups=4)


def test_what_does_not_fit_stays_with_the_reason():
    shape = (1, 4, 5, 7)
    cases = {
        rule.DILATED: nn.ConvTranspose2d(4, 4, 3, 2, dilation=2),
        rule.ONE_PHASE: nn.ConvTranspose2d(4, 4, 3, padding=1),
        rule.UNEVEN: nn.ConvTranspose2d(4, 4, 3, (2, 1)),
        rule.COMPUTED: Calls(_computed),
    }
    for reason, network in cases.items():
        after = transposed_convolution_by_phases(captured(nn.Sequential(network), *shape))
        assert operations(after)["conv_transpose2d"] == 1
        assert skip_reasons(after, rule.NAME) == [reason]

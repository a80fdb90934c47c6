from __future__ import annotations

import pytest
from form_cases import damaged, same_form_twice
from graph_cases import BOUND, Calls, captured, operations, relative_l2, skip_reasons
from torch import nn
from torch.nn import functional as F

from deploykit.graph.passes import convolution_in_blocks as rule
from deploykit.graph.passes.convolution_in_blocks import convolution_in_blocks

LARGE = (1, 3, 62, 58)


@pytest.mark.parametrize(
    ("outputs", "kernel", "padding", "bias"),
    [(1, 3, 1, True), (2, 3, 1, False), (4, 5, 2, True), (3, (3, 5), (1, 2), True), (2, 3, 2, True), (2, 7, 3, False)],
)
def test_few_channels_are_computed_four_pixels_at_a_time(outputs, kernel, padding, bias):
    before = captured(nn.Sequential(nn.Conv2d(3, outputs, kernel, padding=padding, bias=bias)), *LARGE)
    after = same_form_twice(convolution_in_blocks, before, *LARGE)
    assert operations(after) == {"conv2d": 1, "pixel_shuffle": 1}
    assert relative_l2(before, damaged(after, "blocks"), *LARGE) > 1e9 * BOUND


def test_the_smallest_map_is_the_smallest_that_is_rewritten():
    layer = nn.Conv2d(2, 2, 3, padding=1)
    side = round(rule.SMALLEST_MAP**0.5)
    for size, fires in ((side, True), (side - 2, False)):
        after = convolution_in_blocks(captured(nn.Sequential(layer), 1, 2, size, size))
        assert bool(after.report(rule.NAME).fired) is fires
        assert skip_reasons(after, rule.NAME) == ([] if fires else [rule.SMALL_MAP])


def test_what_does_not_fit_stays_with_the_reason():
    cases = {
        rule.MANY_CHANNELS.format(count=5): nn.Conv2d(3, 5, 3, padding=1),
        rule.OTHER_STEPS: nn.Conv2d(3, 2, 3, dilation=2),
        rule.SMALL_KERNEL: nn.Conv2d(3, 2, 1),
        rule.ODD_MAP: nn.Conv2d(3, 2, 4, padding=1),
        rule.COMPUTED: Calls(lambda m, x: F.conv2d(x, x[:, :, :3, :3])),
    }
    for reason, network in cases.items():
        after = convolution_in_blocks(captured(nn.Sequential(network), *LARGE))
        assert operations(after)["pixel_shuffle"] == 0
        assert skip_reasons(after, rule.NAME) == [reason]
    grouped = convolution_in_blocks(captured(nn.Sequential(nn.Conv2d(3, 3, 3, padding=1, groups=3)), *LARGE))
    assert skip_reasons(grouped, rule.NAME) == [rule.OTHER_STEPS]

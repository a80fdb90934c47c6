from __future__ import annotations

import pytest
import torch
from form_cases import damaged, same_form_twice
from graph_cases import BOUND, Calls, captured, operations, relative_l2, skip_reasons
from torch import nn

from deploykit.graph.passes import phase_order
from deploykit.graph.passes import pixel_shuffle_by_transposes as by_transposes
from deploykit.graph.passes import pixel_shuffle_channels_last as channels_last

SHAPE = (2, 3, 5, 7)
FORMS = {
    by_transposes.NAME: by_transposes.pixel_shuffle_by_transposes,
    channels_last.NAME: channels_last.pixel_shuffle_channels_last,
}


def _shuffled(factor: int, **options: object) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 3 * factor**2, 3, padding=1, **options), nn.PixelShuffle(factor))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("factor", [2, 3])
def test_a_shuffle_of_any_factor_keeps_its_values(form, factor):
    before = captured(_shuffled(factor), *SHAPE)
    after = same_form_twice(FORMS[form], before, *SHAPE)
    assert operations(after)["pixel_shuffle"] == 0


def test_two_transposes_move_one_axis_each():
    after = by_transposes.pixel_shuffle_by_transposes(captured(_shuffled(2), *SHAPE))
    assert operations(after) == {"conv2d": 1, "reshape": 3, "transpose": 2}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("groups", "convolutions", "bias"), [(1, 1, True), (3, 4, True), (3, 4, False)])
def test_the_convolution_before_takes_the_order_of_the_channels(form, groups, convolutions, bias):
    before = captured(_shuffled(2, groups=groups, bias=bias), *SHAPE)
    after = same_form_twice(FORMS[form], before, *SHAPE)
    assert operations(after)["conv2d"] == convolutions
    if groups == 1:
        assert relative_l2(before, damaged(after, "0.weight"), *SHAPE) > 1e9 * BOUND


def test_only_many_channels_are_wide():
    for channels, fires in ((channels_last.WIDE_CHANNELS, True), (channels_last.WIDE_CHANNELS - 1, False)):
        graph = captured(nn.Sequential(nn.Conv2d(3, 4 * channels, 1), nn.PixelShuffle(2)), *SHAPE)
        after = channels_last.wide_pixel_shuffle_channels_last(graph)
        assert bool(after.report(channels_last.WIDE).fired) is fires
        narrow = [channels_last.NARROW.format(count=channels)]
        assert skip_reasons(after, channels_last.WIDE) == ([] if fires else narrow)


def _read_twice(m: Calls, x: torch.Tensor) -> torch.Tensor:
    y = m.conv(x)
    return m.shuffle(y) + y.mean()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "network",
    [
        Calls(_read_twice, conv=nn.Conv2d(3, 12, 1), shuffle=nn.PixelShuffle(2)),
        nn.Sequential(nn.Conv2d(3, 12, 1), nn.ReLU(), nn.PixelShuffle(2)),
        nn.Sequential(nn.Conv2d(3, 24, 1, groups=3), nn.PixelShuffle(2)),
    ],
)
def test_channels_that_have_to_keep_their_order_stay_with_the_reason(form, network):
    after = FORMS[form](captured(network, *SHAPE))
    assert operations(after)["pixel_shuffle"] == operations(after)["conv2d"] == 1
    assert skip_reasons(after, form) == [phase_order.OTHER_ORDER]


@pytest.mark.parametrize("form", FORMS)
def test_a_shuffle_of_something_else_stays_with_the_reason(form):
    after = FORMS[form](captured(nn.Sequential(nn.PixelShuffle(2)), 1, 2, 4, 3, 5))
    assert operations(after) == {"pixel_shuffle": 1}
    assert skip_reasons(after, form) == [phase_order.NOT_AN_IMAGE]

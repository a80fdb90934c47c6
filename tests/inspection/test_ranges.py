"""Ranges of channels: a wide, a dead and a transposed one are told apart, on a real network."""

from __future__ import annotations

import pytest
import torch
from targets.small_case import write_case

from deploykit import api
from deploykit.errors import UsageError


def inspected(recipe, **changes):
    """Return layer → ranges of the small network with ``changes``, functions on its tensors, applied."""
    checkpoint = recipe.parent / "small.pt"
    tensors = torch.load(checkpoint, weights_only=True)
    for name, change in changes.items():
        change(tensors[name.replace("__", ".")])
    torch.save(tensors, checkpoint)
    return {one.layer.partition(".")[0]: one for one in api.inspect(recipe, ranges=True).ranges}


def test_one_wide_and_one_dead_channel_are_seen_in_their_layer_alone(tmp_path):
    plain = inspected(write_case(tmp_path / "plain"))
    changed = inspected(
        write_case(tmp_path / "changed"),
        stem__1__weight=lambda gamma: gamma[0].mul_(1000),
        depthwise__1__weight=lambda gamma: gamma[3].fill_(1e-40),
    )
    assert set(plain) == set(changed) >= {"stem", "depthwise", "block", "gate", "coarse", "fine", "up"}
    assert all(one.dead == 0 for one in plain.values())
    assert all(1 <= one.weight_ratio < 20 for one in plain.values())
    assert changed["stem"].weight_ratio > 200 > 20 * plain["stem"].weight_ratio / 2
    assert changed["stem"].activation_ratio > 100
    assert changed["depthwise"].dead == 1
    assert changed["depthwise"].channels == 8
    assert changed["up"].weight_ratio == pytest.approx(plain["up"].weight_ratio)
    assert changed["up"].channels == 2


def test_ranges_need_a_network_and_its_images_need_ranges(tmp_path, exported):
    with pytest.raises(UsageError, match="inspected as it is"):
        api.inspect(exported.path, ranges=True)
    with pytest.raises(UsageError, match="ranges alone"):
        api.inspect("sinet", calibration=tmp_path)

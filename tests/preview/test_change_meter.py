from __future__ import annotations

import numpy as np
import pytest

from deploykit.metrics.flicker import flicker
from deploykit.preview.change import ChangeMeter, seen_before
from deploykit.preview.motion import Motion, places


def test_it_is_the_flicker_against_an_empty_truth():
    rng = np.random.default_rng(5)
    masks = [rng.random((12, 16)).astype(np.float32) for _ in range(4)]
    motions = [
        Motion(rng.normal(0, 3, (12, 16, 2)).astype(np.float32), np.ones((12, 16), np.float32)) for _ in range(3)
    ]
    meter = ChangeMeter()
    for mask, motion in zip(masks, [None, *motions], strict=True):
        meter.add(mask, None if motion is None else seen_before(motion), (12, 16))
    empty = [np.zeros((12, 16), bool)] * 4
    expected = flicker([mask > 0.5 for mask in masks], empty, [places(one.flow) for one in motions])
    assert meter.flicker == pytest.approx(expected)
    assert meter.flicker > 0.1


def test_a_mask_that_stays_does_not_flicker_and_one_alone_has_none():
    mask, still = np.eye(8, dtype=np.float32), Motion(np.zeros((8, 8, 2), np.float32), np.ones((8, 8), np.float32))
    meter = ChangeMeter()
    meter.add(mask, seen_before(still), (8, 8))
    assert meter.flicker is None
    meter.add(mask, None, (8, 8))
    assert meter.flicker is None
    meter.add(mask, seen_before(still), (8, 8))
    assert meter.flicker == 0
    meter.add(1 - mask, seen_before(still), (8, 8))
    assert meter.flicker == 0.5

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from deploykit.errors import UsageError
from deploykit.preview.morphology import dilate, erode, opening, require_kernel


def test_opening_removes_specks_and_keeps_the_shape():
    mask = np.zeros((40, 50), np.float32)
    mask[10:30, 12:40] = 1
    shape = mask.copy()
    mask[3, 3] = mask[35, 45] = mask[33:35, 5:9] = 1
    assert np.array_equal(opening(mask, 5), shape)
    # A kernel as narrow as the specks leaves the larger one, and one wider than the shape leaves nothing.
    assert opening(mask, 3)[33:35, 5:9].max() == 0
    assert opening(mask, 21).max() == 0
    assert not np.array_equal(opening(np.pad(mask, 1)[1:-1, 1:-1], 21), shape)


def test_erosion_and_dilation_are_the_smallest_and_largest_value_of_the_square():
    soft = np.random.default_rng(1).random((9, 11), np.float32)
    assert np.array_equal(erode(soft, 3), ndimage.minimum_filter(soft, 3, mode="constant", cval=np.inf))
    assert np.array_equal(dilate(soft, 3), ndimage.maximum_filter(soft, 3, mode="constant", cval=-np.inf))
    assert not np.array_equal(opening(soft, 3), erode(dilate(soft, 3), 3))


@pytest.mark.parametrize("kernel", [1, 2, 4, 257, -3])
def test_kernels_without_a_centre_are_refused(kernel):
    with pytest.raises(UsageError, match="odd number of pixels"):
        require_kernel(kernel)
    require_kernel(3)

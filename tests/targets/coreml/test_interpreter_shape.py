from __future__ import annotations

import itertools

import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from interpreter_programs import Case, X, check, of, random
from interpreter_references import onnx

Y = random(2, 3, 4, 5, seed=1)
IMAGE = random(2, 8, 4, 6)


def _batched(x: np.ndarray) -> np.ndarray:
    """Space to batch by blocks of 2 x 3, one block offset at a time (the offset is the slow part of the batch)."""
    return np.concatenate([x[:, :, i::2, j::3] for i, j in itertools.product(range(2), range(3))])


def _band(lower: int, upper: int) -> np.ndarray:
    below = np.arange(4)[:, None] - np.arange(5)
    kept = ((below <= lower) | (lower < 0)) & ((-below <= upper) | (upper < 0))
    return np.where(kept, X, 0)


PAD = [(0, 0), (1, 2), (2, 1), (3, 0)]
FLAT_PAD = [amount for pair in PAD for amount in pair]

CASES = [
    of("reshape", "with -1", lambda: X.reshape(2, 12, 5), shape=[2, -1, 5]),
    of("reshape", "keeps an axis", lambda: X.reshape(2, 3, 20, 1), shape=[0, 0, -1, 1]),
    of("reshape", "keeps from the end", lambda: X.reshape(1, 6, 4, 5)[0], target="iOS17", shape=[-1, 0, 0]),
    Case(
        "reshape_like",
        "",
        lambda x, y: mb.reshape_like(x=x, ref_tensors=(y, x), begins=(2, 0), ends=(4, 2), end_masks=(False, False)),
        {"x": X, "y": Y},
        lambda: X.reshape(4, 5, 2, 3),
        "iOS16",
    ),
    Case(
        "reshape",
        "shape known when it runs",
        lambda x, s: mb.reshape(x=x, shape=s),
        {"x": X, "s": np.array([6, -1], np.int32)},
        lambda: X.reshape(6, 20),
    ),
    Case(
        "reshape",
        "whole numbers of 8 bits",
        lambda x: mb.cast(x=mb.reshape(x=mb.cast(x=x, dtype="uint8"), shape=[-1]), dtype="fp32"),
        {"x": np.arange(12, dtype=np.float32).reshape(3, 4) * 20},
        lambda: np.arange(12) * 20,
        "iOS17",
    ),
    of("expand_dims", "", lambda: X[0][:, None, :, :, None], X[0], axes=[1, -1]),
    of("squeeze", "all", lambda: X[:, 0, :, 0], X[:, :1, :, :1]),
    of("squeeze", "one", lambda: X[:, 0, :, :1], X[:, :1, :, :1], axes=[1]),
    of("squeeze", "ignores an axis of other size", lambda: X[:, 0], X[:, :1], axes=[1, 2]),
    of("flatten2d", "from the end", lambda: X.reshape(24, 5), axis=-1),
    of("flatten2d", "", lambda: X.reshape(6, 20), axis=2),
    of("transpose", "", lambda: X.transpose(0, 2, 3, 1), perm=[0, 2, 3, 1]),
    of("transpose", "negative", lambda: X.transpose(0, 3, 1, 2), perm=[0, -1, 1, -2]),
    of("reverse", "all", lambda: np.flip(X)),
    of("reverse", "axes", lambda: X[:, ::-1, :, ::-1], axes=[1, -1]),
    of("tile", "", lambda: np.tile(X, (1, 2, 3, 1)), reps=[1, 2, 3, 1]),
    of("crop", "", lambda: X[:, :, 1:-2, 2:], crop_height=[1, 2], crop_width=[2, 0]),
    of("pad", "constant", lambda: np.pad(X, PAD, constant_values=1.5), pad=FLAT_PAD, constant_val=1.5),
    of("pad", "reflect", lambda: np.pad(X, [(0, 0), *PAD[1:]], "reflect"), pad=FLAT_PAD[2:], mode="reflect"),
    of("pad", "replicate", lambda: np.pad(X, PAD, "edge"), pad=FLAT_PAD, mode="replicate"),
    of("pad", "one axis", lambda: np.pad(X, [(0, 0)] * 3 + [(2, 1)]), pad=[2, 1]),
    of("pixel_shuffle", "", lambda: onnx("DepthToSpace", IMAGE, blocksize=2, mode="CRD"), IMAGE, upscale_factor=2),
    of(
        "pixel_unshuffle",
        "",
        lambda: IMAGE.reshape(2, 8, 2, 2, 3, 2).transpose(0, 1, 3, 5, 2, 4).reshape(2, 32, 2, 3),
        IMAGE,
        "iOS16",
        downscale_factor=np.uint32(2),
    ),
    of("depth_to_space", "", lambda: onnx("DepthToSpace", IMAGE, blocksize=2, mode="DCR"), IMAGE, block_size=2),
    of("space_to_depth", "", lambda: onnx("SpaceToDepth", IMAGE, blocksize=2), IMAGE, block_size=2),
    of(
        "space_to_batch",
        "",
        lambda: _batched(np.pad(IMAGE, [(0, 0), (0, 0), (1, 1), (0, 3)])),
        IMAGE,
        block_shape=[2, 3],
        paddings=[[1, 1], [0, 3]],
    ),
    of(
        "batch_to_space",
        "",
        lambda: IMAGE[:, :, 1:, :-2],
        _batched(IMAGE),
        block_shape=[2, 3],
        crops=[[1, 0], [0, 2]],
    ),
    of(
        "sliding_windows",
        "",
        lambda: np.lib.stride_tricks.sliding_window_view(X, 2, 2)[:, :, ::2].swapaxes(-1, -2),
        axis=2,
        size=2,
        stride=2,
    ),
    of("shape", "", lambda: np.array(X.shape)),
    Case("fill", "", lambda x: mb.fill(shape=mb.shape(x=x), value=0.5), {"x": X}, lambda: np.full(X.shape, 0.5)),
    Case(
        "fill_like",
        "",
        lambda x: mb.fill_like(ref_tensor=x, value=2.5),
        {"x": X},
        lambda: np.full(X.shape, 2.5),
        "iOS16",
    ),
    Case(
        "range_1d",
        "",
        lambda x: mb.range_1d(start=1, end=mb.squeeze(x=x), step=3),
        {"x": np.array([12], np.int32)},
        lambda: np.arange(1, 12, 3),
    ),
    Case(
        "range_1d",
        "of fractions",
        lambda x: mb.range_1d(start=np.float32(0.5), end=mb.squeeze(x=x), step=np.float32(0.25)),
        {"x": np.array([1.6], np.float32)},
        lambda: np.arange(0.5, 1.6, 0.25),
    ),
    Case(
        "range_1d",
        "backwards",
        lambda x: mb.range_1d(start=5, end=mb.squeeze(x=x), step=-2),
        {"x": np.array([-2], np.int32)},
        lambda: np.arange(5, -2, -2),
    ),
    of("band_part", "all", lambda: X),
    of("band_part", "lower", lambda: _band(1, 0), lower=1, upper=0),
    of("band_part", "upper", lambda: _band(-1, 2), lower=-1, upper=2),
    Case(
        "concat", "", lambda x, y: mb.concat(values=(x, y), axis=1), {"x": X, "y": Y}, lambda: np.concatenate([X, Y], 1)
    ),
    Case(
        "concat",
        "interleaved",
        lambda x, y: mb.concat(values=(x, y), axis=-2, interleave=True),
        {"x": X, "y": Y},
        lambda: np.stack([X, Y], 3).reshape(2, 3, 8, 5),
    ),
    Case("stack", "", lambda x, y: mb.stack(values=(x, y), axis=1), {"x": X, "y": Y}, lambda: np.stack([X, Y], 1)),
    of("split", "even", lambda: np.split(X, 2, 2), num_splits=2, axis=2),
    Case(
        "concat",
        "many",
        lambda x, y: mb.concat(values=(x, y, x), axis=0),
        {"x": X, "y": Y},
        lambda: np.concatenate([X, Y, X]),
    ),
    Case(
        "stack", "last", lambda x, y: mb.stack(values=(x, y), axis=-1), {"x": X, "y": Y}, lambda: np.stack([X, Y], -1)
    ),
    of("split", "sizes", lambda: np.split(X, [1, 3], -1), split_sizes=[1, 2, 2], axis=-1),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_operation_equals_its_reference(case: Case) -> None:
    check(case)


def test_the_other_order_of_channels_fails() -> None:
    wrong = of("depth_to_space", "", lambda: onnx("DepthToSpace", IMAGE, blocksize=2, mode="CRD"), IMAGE, block_size=2)
    with pytest.raises(AssertionError):
        check(wrong)

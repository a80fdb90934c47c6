from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from interpreter_programs import Case, check, random
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from deploykit.targets.coreml.interpreter.ops_index import INDEX
from deploykit.targets.coreml.interpreter.ops_shape import SHAPE

X = random(2, 3, 4, 5)
Y = random(2, 3, 4, 5, seed=1)
IMAGE = random(2, 8, 4, 6)


def of(
    name: str,
    label: str,
    expected: Callable[[], Any],
    x: np.ndarray = X,
    target: str = "iOS15",
    **parameters: Any,
) -> Case:
    return Case(name, label, lambda x: getattr(mb, name)(x=x, **parameters), {"x": x}, expected, target)


def onnx(name: str, x: np.ndarray, **attributes: Any) -> np.ndarray:
    """What ONNX's reference evaluator makes of one node."""
    node = helper.make_node(name, ["x"], ["y"], **attributes)
    value = helper.make_tensor_value_info
    graph = helper.make_graph([node], "one", [value("x", 1, x.shape)], [value("y", TensorProto.FLOAT, None)])
    (found,) = ReferenceEvaluator(helper.make_model(graph)).run(None, {"x": x})
    return np.asarray(found)


def _batched(x: np.ndarray) -> np.ndarray:
    """Space to batch by blocks of 2 x 3, one block offset at a time (the offset is the slow part of the batch)."""
    return np.concatenate([x[:, :, i::2, j::3] for i, j in itertools.product(range(2), range(3))])


def _band(lower: int, upper: int) -> np.ndarray:
    below = np.arange(4)[:, None] - np.arange(5)
    kept = ((below <= lower) | (lower < 0)) & ((-below <= upper) | (upper < 0))
    return np.where(kept, X, 0)


PAD = [(0, 0), (1, 2), (2, 1), (3, 0)]
FLAT_PAD = [amount for pair in PAD for amount in pair]

SHAPES = [
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
    of("expand_dims", "", lambda: X[0][:, None, :, :, None], X[0], axes=[1, -1]),
    of("squeeze", "all", lambda: X[:, 0, :, 0], X[:, :1, :, :1]),
    of("squeeze", "one", lambda: X[:, 0, :, :1], X[:, :1, :, :1], axes=[1]),
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
    of("split", "sizes", lambda: np.split(X, [1, 3], -1), split_sizes=[1, 2, 2], axis=-1),
]

PICKS = np.array([[2, 0, -1], [1, 1, 0]], np.int32)


def _slice(label: str, expected: Callable[[], Any], x: np.ndarray = X, **parameters: Any) -> Case:
    return of("slice_by_index", label, expected, x, **parameters)


def gather(name: str, label: str, indices: np.ndarray, expected: Callable[[], Any], target: str, **more: Any) -> Case:
    def build(x: Any, indices: Any) -> Any:
        return getattr(mb, name)(x=x, indices=indices, **more)

    return Case(name, label, build, {"x": X, "indices": indices}, expected, target)


PLACES = np.array([[0, 1], [2, 3], [0, 1]], np.int32)
BASE, NEWS = random(3, 4, 2, seed=2), random(3, 2, seed=3, low=0.5, high=2.0)
MODES: dict[str, Callable[[Any, Any], Any]] = {
    "update": lambda old, new: new,
    "add": lambda old, new: old + new,
    "sub": lambda old, new: old - new,
    "mul": lambda old, new: old * new,
    "div": lambda old, new: old / new,
    "max": np.maximum,
    "min": np.minimum,
}


def _scattered(name: str, mode: str, indices: np.ndarray, updates: np.ndarray, **more: Any) -> Case:
    def build(base: Any, indices: Any, updates: Any) -> Any:
        return getattr(mb, name)(data=base, indices=indices, updates=updates, mode=mode, **more)

    def expected() -> np.ndarray:
        out = BASE.astype(np.float64)
        if name == "scatter_nd":
            for (i, j), row in zip(indices, updates, strict=True):
                out[i, j] = MODES[mode](out[i, j], row)
        elif name == "scatter":
            for number, i in enumerate(indices):
                out[:, i] = MODES[mode](out[:, i], updates[:, number])
        else:
            for place in np.ndindex(indices.shape):
                there = (place[0], indices[place], place[2])
                out[there] = MODES[mode](out[there], updates[place])
        return out

    return Case(name, mode, build, {"base": BASE, "indices": indices, "updates": updates}, expected, tolerance=1e-5)


def _updated() -> np.ndarray:
    out = X.copy()
    out[:, 1:3, ::2, 4] = Y[:, 1:3, ::2, 4]
    return out


INDEXES = [
    _slice("bounds", lambda: X[0:2, 1:3, 1:-1, 2:4], begin=[0, 1, 1, 2], end=[2, 3, -1, 4]),
    _slice("strides", lambda: X[:, :, ::2, 1::3], begin=[0, 0, 0, 1], end=[2, 3, 4, 5], stride=[1, 1, 2, 3]),
    _slice(
        "masks",
        lambda: X[:1, 1:, :, 2:],
        begin=[9, 1, 7, 2],
        end=[1, 0, 0, 0],
        begin_mask=[True, False, True, False],
        end_mask=[False, True, True, True],
    ),
    _slice(
        "backwards",
        lambda: X[:, ::-1, 3:0:-2, ::-1],
        begin=[0, 0, 3, -1],
        end=[2, 0, 0, 0],
        stride=[1, -1, -2, -1],
        begin_mask=[False, True, False, False],
        end_mask=[False, True, False, True],
    ),
    _slice(
        "squeezed",
        lambda: X[:, 2, :, -1],
        begin=[0, 2, 0, -1],
        end=[2, 0, 4, 0],
        squeeze_mask=[False, True, False, True],
    ),
    of("slice_by_size", "", lambda: X[1:, 0:2, 2:, 3:4], begin=[1, 0, 2, -2], size=[-1, 2, -1, 1]),
    Case(
        "slice_update",
        "",
        lambda x, u: mb.slice_update(
            x=x,
            update=u,
            begin=[0, 1, 0, 4],
            end=[2, 3, 4, 5],
            stride=[1, 1, 2, 1],
            squeeze_mask=[False, False, False, True],
        ),
        {"x": X, "u": Y[:, 1:3, ::2, 4]},
        _updated,
        "iOS18",
    ),
    gather("gather", "axis", PICKS, lambda: np.take(X, PICKS, 1), "iOS15", axis=1),
    gather(
        "gather",
        "batch",
        PICKS,
        lambda: np.stack([np.take(X[b], PICKS[b], 1) for b in range(2)]),
        "iOS16",
        axis=2,
        batch_dims=1,
    ),
    gather(
        "gather_along_axis",
        "",
        np.argsort(X, 2).astype(np.int32),
        lambda: np.sort(X, 2),
        "iOS15",
        axis=2,
    ),
    gather("gather_nd", "", PICKS[:, :2] % 2, lambda: X[tuple((PICKS[:, :2] % 2).T)], "iOS15"),
    gather(
        "gather_nd",
        "batch",
        PICKS[..., None],
        lambda: np.stack([X[b][PICKS[b]] for b in range(2)]),
        "iOS16",
        batch_dims=1,
    ),
    *[
        _scattered("scatter_nd", mode, PLACES[:2] if mode == "update" else PLACES, NEWS[: 2 if mode == "update" else 3])
        for mode in MODES
    ],
    _scattered("scatter", "update", np.array([3, 0], np.int32), random(3, 2, 2, seed=4), axis=1),
    _scattered("scatter", "add", np.array([3, 0, 3], np.int32), random(3, 3, 2, seed=4), axis=1),
    _scattered(
        "scatter_along_axis",
        "add",
        np.random.default_rng(5).integers(0, 4, (3, 3, 2)).astype(np.int32),
        random(3, 3, 2, seed=6),
        axis=1,
    ),
    Case(
        "one_hot",
        "",
        lambda x: mb.one_hot(indices=x, one_hot_vector_size=4, axis=1, on_value=2.0, off_value=-1.0),
        {"x": np.array([[3, 0], [1, 2], [0, 0]], np.int32)},
        lambda: np.where(np.arange(4)[:, None] == np.array([[3, 0], [1, 2], [0, 0]])[:, None], 2.0, -1.0),
    ),
    Case(
        "non_zero",
        "",
        lambda x: mb.non_zero(x=mb.relu(x=x)),
        {"x": X},
        lambda: np.argwhere(X > 0),
    ),
]

CASES = [*SHAPES, *INDEXES]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_operation_equals_its_reference(case: Case) -> None:
    check(case)


def test_every_operation_has_a_case() -> None:
    assert {case.operation for case in CASES} == set(SHAPE) | set(INDEX)


def test_the_other_order_of_channels_fails() -> None:
    wrong = of("depth_to_space", "", lambda: onnx("DepthToSpace", IMAGE, blocksize=2, mode="CRD"), IMAGE, block_size=2)
    with pytest.raises(AssertionError):
        check(wrong)

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from interpreter_programs import Case, X, check, of, random, run_program
from interpreter_references import onnx

from deploykit.errors import ArtifactError

Y = random(2, 3, 4, 5, seed=1)

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


CASES = [
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
    Case(
        "slice_by_index",
        "bounds known when it runs",
        lambda x, b, e: mb.slice_by_index(x=x, begin=b, end=e),
        {"x": X, "b": np.array([0, 1, 0, 2], np.int32), "e": np.array([2, 3, 2, 5], np.int32)},
        lambda: X[:, 1:3, :2, 2:],
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
    gather("gather", "no negative index", PICKS % 3, lambda: np.take(X, PICKS % 3, 1), "iOS17", axis=1),
    gather(
        "gather_along_axis",
        "no negative index",
        np.argsort(X, 2).astype(np.int32),
        lambda: np.sort(X, 2),
        "iOS17",
        axis=2,
    ),
    gather("gather_nd", "no negative index", PICKS[:, :2] % 2, lambda: X[tuple((PICKS[:, :2] % 2).T)], "iOS17"),
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
        "one_hot",
        "size known when it runs",
        lambda x, n: mb.one_hot(indices=x, one_hot_vector_size=mb.squeeze(x=n)),
        {"x": np.array([3, 0, 2], np.int32), "n": np.array([4], np.int32)},
        lambda: np.eye(4)[[3, 0, 2]],
    ),
    Case(
        "reverse_sequence",
        "",
        lambda x: mb.reverse_sequence(x=x, lengths=np.array([3, 1], np.int32), seq_axis=2, batch_axis=0),
        {"x": X},
        lambda: onnx(
            "ReverseSequence", X.transpose(0, 2, 1, 3), np.array([3, 1], np.int64), batch_axis=0, time_axis=1
        ).transpose(0, 2, 1, 3),
    ),
    Case(
        "non_zero",
        "",
        lambda x: mb.non_zero(x=mb.relu(x=x)),
        {"x": X},
        lambda: np.argwhere(X > 0),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_operation_equals_its_reference(case: Case) -> None:
    check(case)


OUTSIDE = [
    ("gather", "iOS15", [3], True),
    ("gather", "iOS15", [-4], True),
    ("gather", "iOS16", [-3], False),
    ("gather", "iOS17", [-1], True),
    ("gather_nd", "iOS17", [[1, 3]], True),
    ("gather_nd", "iOS16", [[-1, 2]], False),
]


@pytest.mark.parametrize(("name", "target", "indices", "refused"), OUTSIDE, ids=str)
def test_an_index_outside_its_axis_is_refused(name: str, target: str, indices: list[Any], refused: bool) -> None:
    """From iOS 17 on a negative index does not count from the end: what it gives is undefined."""
    axis = {"axis": 1} if name == "gather" else {}

    def build(x: Any, i: Any) -> Any:
        return getattr(mb, name)(x=x, indices=i, **axis)

    given = {"x": X, "i": np.array(indices, np.int32)}
    if not refused:
        assert run_program(build, given, target)
        return
    with pytest.raises(ArtifactError, match="not defined") as caught:
        run_program(build, given, target)
    assert name in str(caught.value.where)

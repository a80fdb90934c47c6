from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from interpreter_programs import Case, check, random, run_program
from interpreter_references import MODES, onnx, positions, ramp, read_at

X = random(2, 3, 6, 8)
# Rows before columns, start before end: inside, over two borders, and a fraction of a pixel.
BOXES = np.array([[1.0, 1.5, 4.0, 6.25], [-1.0, 2.0, 3.5, 9.0], [2.25, 3.0, 2.75, 3.5]], np.float32)

WRITTEN: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "CORNERS_HEIGHT_FIRST": lambda b: b,
    "CORNERS_WIDTH_FIRST": lambda b: b[:, [1, 0, 3, 2]],
    "CENTER_SIZE_HEIGHT_FIRST": lambda b: np.concatenate([(b[:, :2] + b[:, 2:]) / 2, b[:, 2:] - b[:, :2]], 1),
    "CENTER_SIZE_WIDTH_FIRST": lambda b: np.concatenate([(b[:, :2] + b[:, 2:]) / 2, b[:, 2:] - b[:, :2]], 1)[
        :, [1, 0, 3, 2]
    ],
}


def cut(x: np.ndarray, box: np.ndarray, mode: str, height: int, width: int, padding: float) -> np.ndarray:
    """One box of ``x`` (N, C, H, W): the pixels from its start to its end, sampled as an image of their own."""
    top, left, bottom, right = box.astype(np.float64)
    rows = top + positions(mode, bottom - top + 1, height)
    columns = left + positions(mode, right - left + 1, width)
    return read_at(x, rows, columns, mode="constant", cval=padding)


def _regions(label: str, mode: str, coordinates: str = "CORNERS_HEIGHT_FIRST", **more: Any) -> Case:
    """The form of iOS 15 and 16: every box of every image."""
    scaled = BOXES * np.float32(1 / more.get("spatial_scale", 1.0))
    if more.get("normalized_coordinates"):
        scaled = scaled / np.array([5, 7, 5, 7], np.float32)
    regions = WRITTEN[coordinates](scaled).astype(np.float32).reshape(-1, 1, 4, 1, 1)
    padding = float(more.get("pad_value", 0.0))

    def build(x: Any, roi: Any) -> Any:
        size = {"target_height": 4, "target_width": 5}
        return mb.crop_resize(x=x, roi=roi, **size, **more, sampling_mode=mode, box_coordinate_mode=coordinates)

    def expected() -> np.ndarray:
        return np.stack([cut(X, box, mode, 4, 5, padding) for box in BOXES])

    target = "iOS16" if "pad_value" in more else "iOS15"
    return Case("crop_resize", label, build, {"x": X, "roi": regions}, expected, target, 1e-4)


def _boxes(mode: str) -> Case:
    """The form of iOS 17 on: each box of the image that it names."""
    indices = np.array([1, 0, 1], np.int32)

    def build(x: Any, boxes: Any, indices: Any) -> Any:
        size = {"target_height": 3, "target_width": 4}
        return mb.crop_resize(
            x=x, boxes=boxes, box_indices=indices, **size, sampling_mode=mode, pad_value=np.float32(-2)
        )

    def expected() -> np.ndarray:
        return np.concatenate([cut(X[i : i + 1], box, mode, 3, 4, -2.0) for i, box in zip(indices, BOXES, strict=True)])

    return Case(
        "crop_resize", f"boxes {mode}", build, {"x": X, "boxes": BOXES, "indices": indices}, expected, "iOS17", 1e-4
    )


def _indexed(x: Any, roi: Any) -> Any:
    return mb.crop_resize(x=x, roi=roi, target_height=4, target_width=5, sampling_mode="ALIGN_CORNERS")


CENTRES = random(1, 12, 2, low=0.0, high=10.0)
SIZES = random(1, 12, 2, seed=1, low=2.0, high=7.0)
PLACES = np.concatenate([np.concatenate([CENTRES, SIZES], 2)] * 2)
PLACES[1, :, :2] += random(12, 2, seed=2)
ONE_SCORE, TWO_SCORES = random(2, 12, 1, seed=3, low=0.0, high=1.0), random(2, 12, 2, seed=4, low=0.0, high=1.0)


def by_onnx(image: int, threshold: float, least: float) -> np.ndarray:
    """The numbers of the boxes of one image that ONNX's NonMaxSuppression keeps, best first."""
    found = onnx(
        "NonMaxSuppression",
        PLACES[image : image + 1],
        ONE_SCORE[image : image + 1].transpose(0, 2, 1),
        np.array([6], np.int64),
        np.array([threshold], np.float32),
        np.array([least], np.float32),
        center_point_box=1,
    )
    kept = found[:, 2].astype(int)
    return kept[np.argsort(-ONE_SCORE[image, kept, 0])]


def by_definition(image: int, threshold: float) -> list[int]:
    """Suppression within each class, with the area of each overlap counted on a fine grid."""
    left, right = (PLACES[image, :, :2] + sign * PLACES[image, :, 2:] / 2 for sign in (-1, 1))
    best, kind = TWO_SCORES[image].max(-1), TWO_SCORES[image].argmax(-1)
    kept: list[int] = []
    for number in np.argsort(-best):
        for rival in kept:
            shared = np.clip(np.minimum(right[number], right[rival]) - np.maximum(left[number], left[rival]), 0, None)
            union = PLACES[image, [number, rival], 2:].prod(-1).sum() - shared.prod()
            if kind[number] == kind[rival] and shared.prod() / union > threshold:
                break
        else:
            kept.append(int(number))
    return kept[:6]


def filled(rows: list[np.ndarray], value: float = 0.0) -> np.ndarray:
    return np.stack(
        [np.concatenate([r, np.full((6 - len(r), *r.shape[1:]), value, r.dtype)]) for r in map(np.asarray, rows)]
    )


def _suppressed(label: str, threshold: float, least: float | None, per_class: bool = False) -> Case:
    scores = TWO_SCORES if per_class else ONE_SCORE
    target = "iOS17" if least is None else "iOS15"

    def build(boxes: Any, scores: Any) -> Any:
        more = {} if least is None else {"score_threshold": np.float32(least)}
        if least is None:
            boxes, scores = (mb.transpose(x=one, perm=[0, 2, 1]) for one in (boxes, scores))
        return mb.non_maximum_suppression(
            boxes=boxes,
            scores=scores,
            iou_threshold=np.float32(threshold),
            max_boxes=6,
            per_class_suppression=per_class,
            **more,
        )

    def expected() -> list[np.ndarray]:
        picks = [by_definition(i, threshold) if per_class else by_onnx(i, threshold, least or 0.0) for i in range(2)]
        boxes = filled([PLACES[i, pick] for i, pick in enumerate(picks)])
        kept = filled([scores[i, pick] for i, pick in enumerate(picks)])
        indices = filled([np.array(pick, np.int32) for pick in picks], -1)
        if least is None:
            return [boxes.transpose(0, 2, 1), kept.transpose(0, 2, 1), indices]
        return [boxes, kept, indices, np.array([len(pick) for pick in picks])]

    return Case("non_maximum_suppression", label, build, {"boxes": PLACES, "scores": scores}, expected, target)


CASES = [
    *[_regions(f"regions {mode}", mode) for mode in MODES],
    *[_regions(f"regions {written}", "ALIGN_CORNERS", written) for written in WRITTEN],
    _regions("regions, normalized", "STRICT_ALIGN_CORNERS", normalized_coordinates=True),
    _regions("regions, scaled", "UNALIGN_CORNERS", spatial_scale=0.25),
    _regions("regions, padded", "DEFAULT", pad_value=np.float32(1.5)),
    *[_boxes(mode) for mode in MODES],
    Case(
        "crop_resize",
        "a region that names its image",
        _indexed,
        {"x": X[:1], "roi": np.concatenate([np.zeros((3, 1), np.float32), BOXES], 1).reshape(3, 1, 5, 1, 1)},
        lambda: np.stack([cut(X[:1], box, "ALIGN_CORNERS", 4, 5, 0.0) for box in BOXES]),
        tolerance=1e-4,
    ),
    _suppressed("with a least score", 0.3, 0.25),
    _suppressed("many survive", 0.8, 0.0),
    _suppressed("boxes last", 0.3, None),
    _suppressed("within each class", 0.3, 0.0, per_class=True),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_operation_equals_its_reference(case: Case) -> None:
    check(case)


def test_the_cases_of_suppression_differ() -> None:
    assert len({tuple(by_onnx(0, *given)) for given in ((0.3, 0.25), (0.8, 0.0), (0.3, 0.0))}) == 3
    assert by_definition(0, 0.3) != list(by_onnx(0, 0.3, 0.0))


def test_a_ramp_shows_the_corners_of_a_box() -> None:
    """TensorFlow's rule: the first sample on the start of the box, the last one on its end."""
    box = np.array([1.0, 2.0, 4.0, 6.0], np.float32)

    def build(x: Any) -> Any:
        roi = box.reshape(1, 1, 4, 1, 1)
        return mb.crop_resize(x=x, roi=roi, target_height=7, target_width=9, sampling_mode="ALIGN_CORNERS")

    (found,) = run_program(build, {"x": ramp(6, 8)})
    expected = 10 * np.linspace(1, 4, 7)[:, None] + np.linspace(2, 6, 9)
    np.testing.assert_allclose(found[0, 0, 0], expected, atol=1e-5)


def test_rows_taken_for_columns_fail() -> None:
    case = _regions("", "ALIGN_CORNERS", "CORNERS_WIDTH_FIRST")
    wrong = Case(case.operation, "", case.build, {"x": X, "roi": BOXES.reshape(-1, 1, 4, 1, 1)}, case.expected)
    with pytest.raises(AssertionError):
        check(wrong)

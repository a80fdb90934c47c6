"""Boxes in images: cutting them out, and choosing among those that overlap.

Sources: the notes on ``crop_resize`` and ``non_maximum_suppression`` in the reference of MIL operations. Where they are
silent, TensorFlow's ``crop_and_resize`` and ``non_max_suppression`` rule, from which the two are converted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from deploykit.targets.coreml.interpreter.arguments import Arguments, Operation
from deploykit.targets.coreml.interpreter.ops_resize import grid_points, sampled

_NO_BOX = -1


def _bounds(arguments: Arguments, boxes: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return where the ``boxes`` (N, 4) start and end, in pixels: two tensors (N, 2), rows before columns."""
    mode = arguments.text("box_coordinate_mode")
    pairs = boxes.to(torch.float64).reshape(-1, 2, 2)
    if mode.endswith("WIDTH_FIRST"):
        pairs = pairs.flip(-1)
    start, end = pairs.unbind(1)
    if mode.startswith("CENTER_SIZE"):
        start, end = start - end / 2, start + end / 2
    scale = torch.full((2,), arguments.number("spatial_scale"), dtype=torch.float64)
    if arguments.flag("normalized_coordinates"):
        scale = scale * torch.tensor([height - 1, width - 1])
    return start * scale, end * scale


def _crop(image: Tensor, start: Tensor, end: Tensor, arguments: Arguments) -> Tensor:
    """Return the box of ``image`` (B, C, H, W) from ``start`` to ``end``, resized."""
    sizes = arguments.integer("target_height"), arguments.integer("target_width")
    rows, columns = (
        float(first) + grid_points(arguments.text("sampling_mode"), float(last) - float(first) + 1, target)
        for first, last, target in zip(start, end, sizes, strict=True)
    )
    height, width = image.shape[2:]
    # As in TensorFlow a sample beyond the outermost pixels is the padding alone, never a mixture.
    inside = ((rows >= 0) & (rows <= height - 1))[:, None] & (columns >= 0) & (columns <= width - 1)
    grid = torch.meshgrid(rows.clamp(0, height - 1), columns.clamp(0, width - 1), indexing="ij")
    down, right = (axis.to(torch.float32).expand(image.shape[0], *sizes) for axis in grid)
    padding = arguments.number("pad_value") if arguments.has("pad_value") else 0.0
    return torch.where(inside, sampled(image, right, down, nearest=False, outside=padding), padding)


def _crop_resize(arguments: Arguments) -> Tensor:
    x = arguments.tensor("x")
    if arguments.has("boxes"):
        # The form of iOS 17 on: one image for each box.
        boxes = arguments.tensor("boxes")
        images = [x[index : index + 1] for index in arguments.integers("box_indices")]
    else:
        boxes = arguments.tensor("roi").reshape(arguments.tensor("roi").shape[0], -1)
        images = [x] * len(boxes)
        if boxes.shape[1] == 5:
            images = [x[int(index) : int(index) + 1] for index in boxes[:, 0]]
            boxes = boxes[:, 1:]
    starts, ends = _bounds(arguments, boxes, *x.shape[2:])
    crops = [_crop(*given, arguments) for given in zip(images, starts, ends, strict=True)]
    return torch.cat(crops) if arguments.has("boxes") else torch.stack(crops)


def _overlaps(boxes: Tensor) -> Tensor:
    """Return the intersection over union of every two ``boxes`` (N, 4: centre x, y, width, height): (N, N)."""
    centre, size = boxes[:, :2], boxes[:, 2:]
    low, high = centre - size / 2, centre + size / 2
    shared = (torch.minimum(high[:, None], high) - torch.maximum(low[:, None], low)).clamp(min=0).prod(-1)
    area = size.prod(-1)
    return shared / (area[:, None] + area - shared)


def _chosen(boxes: Tensor, scores: Tensor, arguments: Arguments) -> list[int]:
    """Return the numbers of the ``boxes`` (N, 4) that stay, by falling best score among ``scores`` (N, classes)."""
    best, kind = scores.max(-1)
    rivals = _overlaps(boxes) > arguments.number("iou_threshold")
    if arguments.flag("per_class_suppression"):
        rivals &= kind[:, None] == kind
    least = arguments.number("score_threshold") if arguments.has("score_threshold") else -torch.inf
    chosen: list[int] = []
    for number in torch.argsort(best, descending=True, stable=True).tolist():
        if len(chosen) == arguments.integer("max_boxes"):
            break
        if best[number] >= least and not rivals[number, chosen].any():
            chosen.append(number)
    return chosen


def _filled_up(rows: Tensor, count: int, value: float) -> Tensor:
    more = torch.full((count - len(rows), *rows.shape[1:]), value, dtype=rows.dtype)
    return torch.cat([rows, more])


def _non_maximum_suppression(arguments: Arguments) -> tuple[Tensor, ...]:
    boxes, scores = arguments.tensor("boxes"), arguments.tensor("scores")
    # From iOS 17 on the boxes are the last axis, no score is too low, and the number of boxes is not returned.
    boxes_last = not arguments.has("score_threshold")
    if boxes_last:
        boxes, scores = boxes.mT, scores.mT
    count = arguments.integer("max_boxes")
    chosen = [_chosen(*pair, arguments) for pair in zip(boxes, scores, strict=True)]
    picks = [torch.tensor(numbers, dtype=torch.int64) for numbers in chosen]
    kept = torch.stack([_filled_up(one[pick], count, 0.0) for one, pick in zip(boxes, picks, strict=True)])
    kept_scores = torch.stack([_filled_up(one[pick], count, 0.0) for one, pick in zip(scores, picks, strict=True)])
    indices = torch.stack([_filled_up(pick, count, _NO_BOX) for pick in picks])
    if boxes_last:
        return kept.mT, kept_scores.mT, indices
    return kept, kept_scores, indices, torch.tensor([len(numbers) for numbers in chosen])


BOXES: Final[Mapping[str, Operation]] = {
    "crop_resize": _crop_resize,
    "non_maximum_suppression": _non_maximum_suppression,
}

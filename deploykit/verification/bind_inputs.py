"""Which input of a file takes which input of the recipe, in which layout, as pixels or as the network's tensor.

Names decide, the ones that the caller states first; what has no name in common is matched by shape, and only where
one way alone fits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from deploykit.errors import ArtifactError, UsageError
from deploykit.recipe import Input, Recipe
from deploykit.records import TensorRecord
from deploykit.targets.base import Array, fits
from deploykit.verification.records import InputBinding
from deploykit.verify.samples import Sample
from deploykit.vocab import InputKind, Layout

_FLOATS = ("float16", "float32", "float64")
_MOST_LISTED = 2


def bind_inputs(
    records: Sequence[TensorRecord],
    recipe: Recipe,
    path: Path,
    *,
    names: Mapping[str, str] | None = None,
    kind: InputKind | None = None,
) -> tuple[InputBinding, ...]:
    """Return for every input of ``recipe`` the input of the file at ``path``, whose ``records`` are given.

    ``names`` states input of the recipe → input of the file. ``kind`` says what the images are that a file takes as
    floats: None, the network's tensor. Raises ArtifactError where the file takes something else than the recipe
    gives, UsageError where several ways fit, or a stated name does not exist.
    """
    items = {item.name: item for item in recipe.file.inputs}
    free = {record.name: record for record in records}
    stated = dict(names or {})
    require_known(stated, items, free, "--input-name")
    chosen = {name: stated.get(name, name) for name in items if stated.get(name, name) in free}
    chosen = {name: given for name, given in chosen.items() if name in stated or given not in stated.values()}
    open_items = [item for name, item in items.items() if name not in chosen]
    open_records = [record for name, record in free.items() if name not in chosen.values()]
    found = {name: _binding(items[name], free[given], kind) for name, given in chosen.items()}
    wrong = [name for name, binding in found.items() if binding is None]
    ways = list(_ways(open_items, open_records, kind)) if len(open_items) == len(open_records) else []
    if wrong or not ways:
        raise ArtifactError(
            "The file does not take what the recipe gives.",
            where=str(path),
            found=", ".join(f"{one.name} {one.dtype} {list(one.shape)}" for one in records),
            expected=f"{recipe.name}: " + ", ".join(f"{item.name} {list(item.shape)}" for item in recipe.file.inputs),
            next_step="give the recipe that the file was made from, with --recipe",
        )
    exact = [way for way in ways if not any(one.resized for one in way)]
    ways = exact or ways
    if len(ways) > 1:
        left, right = open_items[0].name, open_records[0].name
        raise UsageError(
            "It is not clear which input of the file is which.",
            where=str(path),
            found=", ".join(f"{one.name} {list(one.shape)}" for one in open_records),
            expected=", ".join(f"{item.name} {list(item.shape)}" for item in open_items),
            next_step=f"say it, for example --input-name {left}={right}",
        )
    found |= {binding.input: binding for binding in ways[0]}
    return tuple(binding for name in items if (binding := found[name]) is not None)


def require_known(
    stated: Mapping[str, str], ours: Mapping[str, object], theirs: Mapping[str, object], option: str
) -> None:
    """Raise UsageError unless the stated names exist on both sides, each of the file once."""
    unknown = [name for name in stated if name not in ours] + [name for name in stated.values() if name not in theirs]
    twice = [name for name in stated.values() if list(stated.values()).count(name) > 1]
    if unknown or twice:
        raise UsageError(
            "There is no such name." if unknown else "A name of the file is given twice.",
            where=option,
            found=", ".join(dict.fromkeys(unknown or twice)),
            expected=f"RECIPE=FILE; the recipe has {', '.join(ours)}; the file has {', '.join(theirs)}",
        )


def _ways(
    items: Sequence[Input], records: Sequence[TensorRecord], kind: InputKind | None
) -> Iterator[tuple[InputBinding, ...]]:
    """Yield up to two ways in which every one of ``items`` has a record of its own that fits."""
    yielded = 0

    def extended(index: int, taken: tuple[InputBinding, ...]) -> Iterator[tuple[InputBinding, ...]]:
        if index == len(items):
            yield taken
            return
        for record in records:
            if any(one.file_input == record.name for one in taken):
                continue
            binding = _binding(items[index], record, kind)
            if binding is not None:
                yield from extended(index + 1, (*taken, binding))

    for way in extended(0, ()):
        exact = not any(one.resized for one in way)
        yield way
        yielded += exact
        if yielded >= _MOST_LISTED:
            return


def _binding(item: Input, record: TensorRecord, kind: InputKind | None) -> InputBinding | None:
    """Return how ``record`` takes ``item``, or None where it cannot."""
    is_image = item.kind == "image"
    if record.dtype == "uint8" and is_image:
        taken = InputKind.IMAGE
    elif record.dtype in _FLOATS:
        taken = kind or InputKind.TENSOR if is_image else InputKind.TENSOR
    else:
        return None
    layouts = (record.layout, *(layout for layout in Layout if layout is not record.layout))
    for layout in layouts if len(item.shape) == 4 else (Layout.NCHW,):
        shape = _ordered(item.shape, layout)
        made = InputBinding(item.name, record.name, shape, record.dtype, layout, taken, record.color_order)
        if fits(record, shape):
            return made
    for layout in layouts if is_image else ():
        sized = _at_its_size(item, record, layout)
        if sized is not None:
            return InputBinding(item.name, record.name, sized, record.dtype, layout, taken, record.color_order, True)
    return None


def _ordered(shape: tuple[int, ...], layout: Layout) -> tuple[int, ...]:
    return (shape[0], *shape[2:], shape[1]) if layout is Layout.NHWC and len(shape) == 4 else shape


def _at_its_size(item: Input, record: TensorRecord, layout: Layout) -> tuple[int, ...] | None:
    """Return the shape of an image of the height and width that ``record`` fixes, or None where it takes no image."""
    if len(record.shape) != 4:
        return None
    axes = (1, 2) if layout is Layout.NHWC else (2, 3)
    height, width = (
        record.shape[axis] if record.shape[axis] > 0 else item.shape[-2:][i] for i, axis in enumerate(axes)
    )
    shape = _ordered((1, item.shape[1], height, width), layout)
    return shape if fits(record, shape) else None


def size_of(bindings: Sequence[InputBinding]) -> tuple[int, int] | None:
    """Return height and width of the image inputs that resize by themselves; None where there is none."""
    for one in bindings:
        if one.resized:
            rows, columns = one.shape[1:3] if one.layout is Layout.NHWC else one.shape[2:4]
            return rows, columns
    return None


def fed(bindings: Sequence[InputBinding], sample: Sample, recipe: Recipe) -> dict[str, Array]:
    """Return ``sample`` as the file takes it, by the file's names: dtype, layout, pixels or the network's tensor."""
    orders = {item.name: item.color_order for item in recipe.file.inputs}
    given: dict[str, Array] = {}
    for one in bindings:
        if one.kind is InputKind.IMAGE:
            pixels = sample.pixels[one.input]
            if one.color_order not in (None, orders[one.input]):
                pixels = pixels[:, :, ::-1]
            array: Array = pixels[None] if one.layout is Layout.NHWC else pixels.transpose(2, 0, 1)[None]
        else:
            array = sample.tensors[one.input]
            if one.layout is Layout.NHWC and array.ndim == 4:
                array = array.transpose(0, 2, 3, 1)
        given[one.file_input] = np.ascontiguousarray(array.astype(one.dtype))
    return given


def with_color_orders(records: Sequence[TensorRecord], described: Sequence[TensorRecord]) -> tuple[TensorRecord, ...]:
    """Return ``records`` with the colour orders that a manifest states where the format has no say."""
    orders = {record.name: record.color_order for record in described}
    return tuple(
        record if record.color_order else replace(record, color_order=orders.get(record.name)) for record in records
    )

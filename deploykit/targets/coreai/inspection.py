"""Read what a Core AI asset holds: its program as it is on disk, nothing run."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from deploykit.graph.conventions import Kind, Operation
from deploykit.targets.contents import FileContents, FileTensor, WeightBytes, packed_bytes, sum_by_dtype
from deploykit.targets.coreai.client import Child
from deploykit.targets.coreai.program import METADATA, Program, ProgramOperation, Value, program_from_json, refused
from deploykit.vocab import Target

_ITEM = "deploykit."
_OWN = ("assetVersion", "author", "description", "license", "producer")
_CUSTOM = "creatorDefinedMetadata"
_CONSTANT = "constant"
_MOVES = {
    *("reshape", "transpose", "concat", "split", "slice", "slice_update", "shrink_dims", "expand_dims", "pad", "tile"),
    *("gather_nd", "gather_along_axis", "scatter_nd", "scatter_along_axis", "cast", "get_shape", "range", "reverse"),
    *("broadcast_to", "broadcast_in_dims", "broadcast_shapes", "pixel_shuffle", "broadcasting_where", "where"),
    *("non_zero", "image_to_tensor", "tensor_to_image", "read_handle", "write_handle", "create_token", "join_token"),
}
_CONVOLUTIONS = {
    **dict.fromkeys(("conv2d", "conv3d"), Kind.CONVOLUTION),
    **dict.fromkeys(("conv_transpose2d", "conv_transpose3d"), Kind.TRANSPOSED_CONVOLUTION),
}
_PRODUCTS = {"batch_matmul", "broadcasting_batch_matmul"}
# They multiply, and how often does not follow from the shapes of their inputs, or it is not in the file.
_UNKNOWN = {"scaled_dot_product_attention", "if", "while", "scan", "invoke", "delegate", "metal4_kernel"}
_QUANTIZED = ("quantize", "dequantize", "lut_to", "sparse_with", "blockwise_shift_scale")


def read_contents(path: Path) -> FileContents:
    """Return what the asset at ``path`` holds. Raises ArtifactError where it is none or damaged."""
    with Child(path) as child:
        program = program_from_json(child.ask("describe")[0])
    described, custom = _described(path)
    values = program.values()
    work = tuple(_operation(one, values) for one in program.operations if one.name != _CONSTANT)
    operations = Counter(operation.name for operation in work)
    return FileContents(
        target=Target.COREAI,
        path=path,
        size_bytes=sum(item.stat().st_size for item in path.rglob("*") if item.is_file()),
        versions={"asset": described.pop("assetVersion", "unknown"), "Core AI": program.system or "unknown"},
        minimum_os=_systems(program.system),
        inputs=tuple(_declared(one.name, one, custom.get(f"input.{one.name}", "")) for one in program.inputs),
        outputs=tuple(
            _declared(name, values[inside], custom.get(f"output.{name}", ""))
            for name, inside in program.outputs.items()
        ),
        operations=dict(operations.most_common()),
        transposes=operations["transpose"],
        quantized={kind: count for kind, count in operations.most_common() if kind.startswith(_QUANTIZED)},
        weights=stored_weights(program),
        computed=dict(
            Counter(
                value.dtype
                for one in program.operations
                if one.name != _CONSTANT
                for value in one.results
                if value.shape is not None
            ).most_common()
        ),
        work=work,
        metadata={
            **described,
            **{key: text for key, text in custom.items() if not key.startswith(("input.", "output."))},
        },
        notes=_notes(program),
    )


def _described(path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Return what the asset says of itself, in Core AI's own fields and in those that its maker chose."""
    if not (path / METADATA).is_file():
        return {}, {}
    try:
        said = json.loads((path / METADATA).read_text("utf-8"))
        own = {key: str(said[key]) for key in _OWN if said.get(key)}
        custom = {key.removeprefix(_ITEM): str(text) for key, text in sorted(said.get(_CUSTOM, {}).items())}
    except (ValueError, AttributeError, TypeError) as error:
        raise refused(path, f"{METADATA}: {type(error).__name__}: {error}", "a description in JSON") from error
    return own, custom


def _systems(version: str | None) -> str | None:
    if version is None:
        return None
    short = version.removesuffix(".0")
    return f"iOS {short}, macOS {short}"


def _notes(program: Program) -> tuple[str, ...]:
    if len(program.functions) < 2:
        return ()
    return (f"{len(program.functions)} functions in the file; this is {program.name}",)


def _declared(name: str, value: Value, meaning: str) -> FileTensor:
    shape = () if value.shape is None else tuple("?" if size is None else size for size in value.shape)
    return FileTensor(name, shape, value.dtype, meaning=meaning)


def stored_weights(program: Program) -> tuple[WeightBytes, ...]:
    """Return the constants of ``program`` by dtype."""
    return sum_by_dtype(_constants(program))


def _constants(program: Program) -> Iterator[tuple[str, int, int]]:
    """Yield dtype, values and bytes of every constant; of many equal values the file stores one."""
    for operation in program.operations:
        for value in operation.results if operation.name == _CONSTANT else ():
            numbers = _count(value)
            yield value.dtype, numbers, packed_bytes(value.dtype, min(numbers, 1) if operation.splat else numbers)


def _count(value: Value | None) -> int:
    """Return how many numbers ``value`` has; 0 where that is not in the file."""
    if value is None or value.shape is None or None in value.shape:
        return 0
    return math.prod(size for size in value.shape if size is not None)


def _operation(operation: ProgramOperation, values: dict[str, Value]) -> Operation:
    found = _plain(operation, [values.get(name) for name in operation.operands])
    # How often the body of a loop or a branch runs is not in the file.
    return replace(found, kind=Kind.UNKNOWN) if operation.nested and found.kernel else found


def _plain(operation: ProgramOperation, read: list[Value | None]) -> Operation:
    made = operation.results[0] if operation.results else None
    first, second = (read[at] if at < len(read) else None for at in (0, 1))
    inputs, outputs = _count(first), _count(made)
    plain = Operation(operation.name, Kind.OTHER, made.name if made else "", inputs, outputs)
    if operation.name in _MOVES:
        return replace(plain, kind=Kind.MOVE)
    if operation.name in _CONVOLUTIONS:
        role, kernel = _CONVOLUTIONS[operation.name], _count(second)
        if second is None or not second.shape or not kernel * inputs * outputs:
            return replace(plain, kind=Kind.UNKNOWN)
        applied, channels = outputs, second.shape[0]
        if role is Kind.TRANSPOSED_CONVOLUTION:
            applied = inputs
        return replace(plain, kind=role, kernel=kernel, positions=applied // int(channels or 1))
    if operation.name in _PRODUCTS:
        inner = first.shape[-1] if first and first.shape else None
        if not inner or not outputs:
            return replace(plain, kind=Kind.UNKNOWN)
        return replace(plain, kind=Kind.MATRIX_PRODUCT, kernel=inner, positions=outputs)
    return replace(plain, kind=Kind.UNKNOWN) if operation.name in _UNKNOWN else plain

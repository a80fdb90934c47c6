"""Read what a Core ML package holds: its ML program as it is on disk, nothing converted or run."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from coremltools.proto import FeatureTypes_pb2, MIL_pb2, Model_pb2

from deploykit.errors import ArtifactError
from deploykit.graph.conventions import Kind, Operation, einsum_inner
from deploykit.targets.contents import FileContents, FileTensor, WeightBytes, packed_bytes, sum_by_dtype
from deploykit.vocab import Target

# Version of the specification → the systems that came with it, and later ones, run it.
_SYSTEMS = {
    6: "iOS 15, macOS 12",
    7: "iOS 16, macOS 13",
    8: "iOS 17, macOS 14",
    9: "iOS 18, macOS 15",
    10: "iOS 26, macOS 26",
}
_MOVES = {
    *("reshape", "transpose", "concat", "stack", "split", "slice_by_index", "slice_by_size", "slice_update", "squeeze"),
    *("expand_dims", "pad", "tile", "gather", "gather_along_axis", "gather_nd", "scatter", "scatter_nd", "cast"),
    *("identity", "shape", "fill", "fill_like", "range_1d", "reverse", "depth_to_space", "space_to_depth", "select"),
    *("pixel_shuffle", "pixel_unshuffle", "flatten2d", "band_part", "sliding_windows", "non_zero", "one_hot", "crop"),
    *("read_state", "coreml_update_state", "const"),
}
# They multiply, and how often does not follow from the shapes of their inputs, or it is not in the file.
_UNKNOWN = {"lstm", "gru", "rnn", "scaled_dot_product_attention", "cond", "while_loop", "custom_layer"}
_COMPRESSED = ("constexpr_", "quantize", "dequantize")
_DTYPES = {number: name.lower() for name, number in MIL_pb2.DataType.items()}
_ITEM = "deploykit."
_COLORS = {"RGB": "rgb", "BGR": "bgr", "GRAYSCALE": "grey", "GRAYSCALE_FLOAT16": "grey, float16"}


def read_contents(path: Path) -> FileContents:
    """Return what the package at ``path`` holds. Raises ArtifactError where it is none, damaged, or no ML program."""
    specification = _specification(path)
    kind = specification.WhichOneof("Type")
    if kind != "mlProgram":
        raise _refused(path, f"a model of type {kind}" if kind else "no model", "an ML program")
    name = specification.description.defaultFunctionName or "main"
    functions = specification.mlProgram.functions
    if name not in functions:
        raise _refused(path, f"the functions {', '.join(functions) or 'none'}", f"a function {name}")
    function = functions[name]
    if function.opset not in function.block_specializations:
        raise _refused(path, f"no block for the opset {function.opset}", "a whole ML program")
    try:
        return _contents(path, specification, name, function)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        raise _refused(path, f"{type(error).__name__}: {error}", "a whole ML program") from error


def _contents(path: Path, specification: Any, name: str, function: Any) -> FileContents:
    block = function.block_specializations[function.opset]
    values = _Values.of(function, block)
    functions = specification.mlProgram.functions
    work = tuple(operation for operation in _operations(block, values) if operation.name != "const")
    operations = Counter(operation.name for operation in work)
    metadata = {
        key.removeprefix(_ITEM): text for key, text in sorted(specification.description.metadata.userDefined.items())
    }
    features = _features(specification, name)
    return FileContents(
        target=Target.COREML,
        path=path,
        size_bytes=sum(item.stat().st_size for item in path.rglob("*") if item.is_file()),
        versions={"specification": str(specification.specificationVersion), "opset": function.opset},
        minimum_os=_SYSTEMS.get(specification.specificationVersion),
        inputs=tuple(_declared(item, values) for item in features.input),
        outputs=tuple(_declared(item, values) for item in features.output),
        operations=dict(operations.most_common()),
        transposes=operations["transpose"],
        quantized={kind: count for kind, count in operations.most_common() if kind.startswith(_COMPRESSED)},
        weights=_weights(path, block),
        computed=dict(Counter(_made(block)).most_common()),
        work=work,
        metadata={
            **_described(specification),
            **{key: text for key, text in metadata.items() if not key.startswith(("input.", "output."))},
        },
        notes=(f"{len(functions)} functions in the file; this is {name}",) if len(functions) > 1 else (),
    )


def _specification(path: Path) -> Any:
    """Return the parsed specification of the package, whose manifest names the file that it is in."""
    try:
        manifest = json.loads((path / "Manifest.json").read_text("utf-8"))
        item = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _refused(path, f"Manifest.json: {type(error).__name__}: {error}", "a package with a manifest") from error
    model = _inside(path, f"Data/{item}")
    specification = Model_pb2.Model()
    try:
        specification.ParseFromString(model.read_bytes())
    except Exception as error:
        # protobuf has its own classes of errors, and is installed only with coremltools.
        raise _refused(path, f"{model.name}: {type(error).__name__}: {error}", "a readable specification") from error
    return specification


def _inside(package: Path, relative: str) -> Path:
    found = (package / relative).resolve()
    if not found.is_relative_to(package.resolve()):
        raise _refused(package, f"the path {relative}", "files inside the package")
    return found


def _refused(path: Path, found: str, expected: str) -> ArtifactError:
    return ArtifactError(
        "The Core ML package cannot be read.",
        where=str(path),
        found=found[:300],
        expected=expected,
        next_step="export or download it again",
    )


def _features(specification: Any, name: str) -> Any:
    """Return what describes the inputs and outputs: the function's own description, or the model's."""
    described = specification.description
    return next((one for one in described.functions if one.name == name), described)


def _described(specification: Any) -> dict[str, str]:
    stated = specification.description.metadata
    texts = {
        "description": stated.shortDescription,
        "version": stated.versionString,
        "author": stated.author,
        "license": stated.license,
    }
    return {key: text for key, text in texts.items() if text}


@dataclass(frozen=True)
class _Values:
    """What is known of the values of a program by name; ``constants`` are those of one number or text."""

    shapes: Mapping[str, tuple[int, ...]]
    constants: Mapping[str, Any]

    @classmethod
    def of(cls, function: Any, block: Any) -> _Values:
        entries = [*function.inputs, *(entry for operation in _flat(block) for entry in operation.outputs)]
        shapes = {entry.name: shape for entry in entries if (shape := _shape(entry.type)) is not None}
        constants = {
            operation.outputs[0].name: value
            for operation in _flat(block)
            if operation.type == "const" and (value := _scalar(operation.attributes["val"])) is not None
        }
        return cls(shapes, constants)

    def shape(self, operation: Any, key: str) -> tuple[int, ...] | None:
        """Return the shape of the argument ``key`` of ``operation`` where it is fixed."""
        found = operation.inputs[key].arguments if key in operation.inputs else ()
        if not found:
            return None
        return self.shapes.get(found[0].name) if found[0].name else _shape(found[0].value.type)

    def constant(self, operation: Any, key: str) -> Any:
        """Return the number or text of the argument ``key`` of ``operation``, or None."""
        found = operation.inputs[key].arguments if key in operation.inputs else ()
        if not found:
            return None
        return self.constants.get(found[0].name) if found[0].name else _scalar(found[0].value)


def _flat(block: Any) -> Iterator[Any]:
    for operation in block.operations:
        yield operation
        for inner in operation.blocks:
            yield from _flat(inner)


def _shape(kind: Any) -> tuple[int, ...] | None:
    if kind.WhichOneof("type") != "tensorType":
        return None
    axes = kind.tensorType.dimensions
    if any(axis.WhichOneof("dimension") != "constant" for axis in axes):
        return None
    return tuple(int(axis.constant.size) for axis in axes)


def _scalar(value: Any) -> Any:
    if value.WhichOneof("value") != "immediateValue" or value.immediateValue.WhichOneof("value") != "tensor":
        return None
    stored = value.immediateValue.tensor
    kind = stored.WhichOneof("value")
    found: Any = getattr(stored, kind).values if kind else ()
    return found[0] if kind != "bytes" and len(found) == 1 else None


def _operations(block: Any, values: _Values, nested: bool = False) -> Iterator[Operation]:
    for operation in block.operations:
        found = _operation(operation, values)
        # How often the body of a loop or a branch runs is not in the file.
        yield replace(found, kind=Kind.UNKNOWN) if nested and found.kernel else found
        for inner in operation.blocks:
            yield from _operations(inner, values, nested=True)


def _operation(operation: Any, values: _Values) -> Operation:
    kind, image = operation.type, values.shape(operation, "x")
    made = _shape(operation.outputs[0].type) if operation.outputs else None
    inputs, outputs = (0 if shape is None else math.prod(shape) for shape in (image, made))
    place = operation.outputs[0].name if operation.outputs else ""
    plain = Operation(kind, Kind.OTHER, place, inputs, outputs)
    if kind in _MOVES or kind.startswith("constexpr_"):
        return replace(plain, kind=Kind.MOVE)
    if kind in ("conv", "conv_transpose", "linear"):
        weight = values.shape(operation, "weight")
        if not weight or not math.prod(weight) * inputs * outputs:
            return replace(plain, kind=Kind.UNKNOWN)
        role, positions = {
            "conv": (Kind.CONVOLUTION, outputs // weight[0]),
            "conv_transpose": (Kind.TRANSPOSED_CONVOLUTION, inputs // weight[0]),
            "linear": (Kind.LINEAR, inputs // weight[-1]),
        }[kind]
        return replace(plain, kind=role, kernel=math.prod(weight), positions=positions)
    if kind in ("matmul", "einsum"):
        inner = _inner(operation, values, image)
        if inner is None or not outputs:
            return replace(plain, kind=Kind.UNKNOWN)
        return replace(plain, kind=Kind.MATRIX_PRODUCT, kernel=inner, positions=outputs)
    return replace(plain, kind=Kind.UNKNOWN) if kind in _UNKNOWN else plain


def _inner(operation: Any, values: _Values, left: tuple[int, ...] | None) -> int | None:
    if operation.type == "einsum":
        equation = values.constant(operation, "equation")
        shapes = [values.shapes.get(one.name) for one in operation.inputs["values"].arguments]
        return einsum_inner(equation, shapes) if isinstance(equation, str) else None
    if not left:
        return None
    return left[-2] if len(left) > 1 and values.constant(operation, "transpose_x") else left[-1]


def _made(block: Any) -> Iterator[str]:
    for operation in _flat(block):
        if operation.type != "const" and not operation.type.startswith("constexpr_"):
            for entry in operation.outputs:
                if entry.type.WhichOneof("type") == "tensorType":
                    yield _DTYPES.get(entry.type.tensorType.dataType, "unknown")


def _weights(package: Path, block: Any) -> tuple[WeightBytes, ...]:
    return sum_by_dtype(constant for operation in _flat(block) for constant in _constants(package, operation))


def _constants(package: Path, operation: Any) -> Iterator[tuple[str, int, int]]:
    """Yield dtype, values and bytes of what lies in the weight file, and of floating values in the program itself."""
    stored = [*operation.attributes.values()] if operation.type.startswith(("const", "constexpr_")) else []
    stored += [one.value for item in operation.inputs.values() for one in item.arguments if not one.name]
    for value in stored:
        shape = _shape(value.type)
        if shape is None:
            continue
        dtype, numbers = _DTYPES.get(value.type.tensorType.dataType, "unknown"), math.prod(shape)
        in_file = value.WhichOneof("value") == "blobFileValue"
        if in_file:
            _require_weights(package, value.blobFileValue)
        if in_file or dtype.startswith("float"):
            yield dtype, numbers, packed_bytes(dtype, numbers)


def _require_weights(package: Path, place: Any) -> None:
    file = _inside(package, place.fileName.replace("@model_path", "Data/com.apple.CoreML", 1))
    if not file.is_file() or file.stat().st_size <= place.offset:
        found = f"{file.stat().st_size} bytes" if file.is_file() else "nothing"
        raise _refused(package, f"{found} in {file.name}", f"weights at byte {place.offset}")


def _declared(feature: Any, values: _Values) -> FileTensor:
    kind = feature.type.WhichOneof("Type")
    if kind == "imageType":
        image = feature.type.imageType
        color = FeatureTypes_pb2.ImageFeatureType.ColorSpace.Name(image.colorSpace)
        shape: tuple[int | str, ...] = (int(image.height), int(image.width))
        return FileTensor(feature.name, shape, "image", _COLORS.get(color, color.lower()), feature.shortDescription)
    if kind != "multiArrayType":
        return FileTensor(feature.name, (), kind or "nothing", meaning=feature.shortDescription)
    array = feature.type.multiArrayType
    dtype = FeatureTypes_pb2.ArrayFeatureType.ArrayDataType.Name(array.dataType).lower()
    # An output may leave its shape to the program.
    shape = tuple(int(size) for size in array.shape) or values.shapes.get(feature.name, ())
    return FileTensor(feature.name, shape, dtype, meaning=feature.shortDescription)

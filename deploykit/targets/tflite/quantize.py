"""A TFLite file with integers: what LiteRT has integer kernels for is computed in them, the rest in float32.

The file takes and returns what the float file does, unless it is asked to take and return the integers themselves.
It is written here and not by ai-edge-quantizer, which has no LEAKY_RELU, MINIMUM, ABS or DEPTH_TO_SPACE, and names
operations by regular expressions.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from deploykit.errors import TargetError
from deploykit.targets.base import Array, check_inputs
from deploykit.targets.integers import ActivationIntegers, require_known, require_ranges
from deploykit.targets.quantized import KEPT_WEIGHTS, Activation, LeftInFloat, QuantizedFile, Range, unreadable
from deploykit.targets.schemes import require_integers
from deploykit.targets.tflite.flatbuffer import drop_unread, stored_bytes, write_shared
from deploykit.targets.tflite.integer_plan import (
    FloatFile,
    IntegerPlan,
    coordinates,
    plan,
    read_float,
    reason_for_float,
    takes_weights,
)
from deploykit.targets.tflite.rounding import EIGHT, SIXTEEN, Rounding
from deploykit.targets.tflite.runtime import open_artifact
from deploykit.targets.tflite.traced import origins
from deploykit.vocab import Precision, Target


def activations(path: Path, precision: Precision) -> tuple[Activation, ...]:
    """Return the float32 inputs of the file, then what its operations compute, in the order of execution.

    Raises TargetError where ``precision`` is none that a TFLite file is quantized to.
    """
    file = _read(path, precision)
    wiring, last, computed = file.wiring, file.wiring.channels_last(), file.wiring.computed()
    places = coordinates(file)

    def one(index: int, operation: str, reads: tuple[str, ...], takes: bool, quantizes: bool) -> Activation:
        shape = tuple(int(size) for size in file.graph.tensors[index].shape)
        parts = origins(wiring.names[index]) if operation else ()
        return Activation(file.names[index], operation, reads, shape, index in last, parts, takes, quantizes)

    found = [one(index, "", (), False, False) for index in wiring.inputs.values() if file.is_float(index)]
    given = set(wiring.inputs.values())
    for place, operator in enumerate(wiring.operators):
        reads = tuple(file.names[index] for index in operator.reads if index in computed or index in given)
        quantizes = (
            precision.quantizes_activations
            and bool(file.activations(place))
            and not reason_for_float(file, place, precision, places)
        )
        found.extend(
            one(index, operator.kind, reads, takes_weights(file, place), quantizes)
            for index in operator.makes
            if index in computed and file.is_float(index)
        )
    return tuple(found)


def observe(path: Path, inputs: Iterable[Mapping[str, Array]], names: Collection[str]) -> Iterator[dict[str, Array]]:
    """Yield, for each set of inputs, name → array of the activations ``names``, as LiteRT computes them."""
    with open_artifact(path) as runtime:
        declared = runtime.inputs
    file = _read(path, Precision.INT8)
    places = {name: index for index, name in enumerate(file.names)}
    require_known(path, "names", names, places)
    given = set(file.wiring.inputs)
    with warnings.catch_warnings():
        # It warns that preserving all tensors takes memory.
        warnings.simplefilter("ignore", UserWarning)
        interpreter = Interpreter(model_path=str(path), num_threads=1, experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    for values in inputs:
        check_inputs(path, declared, values)
        for name, value in values.items():
            interpreter.set_tensor(file.wiring.inputs[name], value)
        interpreter.invoke()
        yield {
            name: np.asarray(values[name]) if name in given else interpreter.get_tensor(places[name]) for name in names
        }


def quantize(
    path: Path,
    output: Path,
    precision: Precision,
    *,
    ranges: Mapping[str, Range],
    kept: Collection[str] = (),
    kept_weights: Collection[str] = (),
    integer_io: bool = False,
) -> QuantizedFile:
    """Write the float file ``path`` as ``output`` with integers, as ``Quantizer.quantize`` says.

    ``integer_io``: the file takes and returns the integers themselves, whose scales its tensors state.

    Raises TargetError where ``precision`` is none of TFLite, a range is missing or not finite, a weight is not finite,
    a name is not in the file, or integers are to be returned of what is computed in float.
    """
    file = _read(path, precision)
    before = stored_bytes(file.model)
    known = {file.names[index] for operator in file.wiring.operators for index in operator.makes}
    require_known(path, "kept", kept, known)
    require_known(path, "kept_weights", kept_weights, known)
    static = precision.quantizes_activations
    chosen = plan(file, precision, {*kept, *kept_weights}) if static else IntegerPlan(frozenset(), (), {})
    touched = sorted(chosen.group)
    require_ranges(path, (file.names[index] for index in touched if index not in chosen.fixed), ranges)
    bits = SIXTEEN if precision is Precision.W8A16 else EIGHT
    named = {index: ranges.get(file.names[index]) for index in touched}
    numbers: dict[int, ActivationIntegers] = {}
    for members in chosen.shared().values():
        spans = [chosen.fixed.get(index) or named[index] for index in members]
        whole = [span for span in spans if span is not None]
        span = Range(min(one.lowest for one in whole), max(one.highest for one in whole))
        alone = [chosen.fixed[index] for index in members if index in chosen.fixed]
        own = bits.fixed(span) if alone and span == alone[0] else bits.spread(span)
        numbers.update(dict.fromkeys(members, own))
    rounding = Rounding(file, bits, numbers)
    rounding.start(integer_inputs=integer_io)
    for place, operator in enumerate(file.wiring.operators):
        if place in chosen.integer:
            rounding.integer_operation(place, chosen.fixed)
        else:
            stays = any(file.names[index] in kept_weights for index in operator.makes)
            rounding.float_operation(place, integer_weights=not stays)
    rounding.finish(_returned(file, rounding, integer_io))
    activations_rounded, weights = rounding.activations, rounding.weights
    drop_unread(file.model)
    write_shared(file.model, output)
    return QuantizedFile(
        activations=activations_rounded,
        weights=weights,
        weight_bytes=stored_bytes(file.model),
        float_weight_bytes=before,
        left_in_float=tuple(_left(chosen, kept_weights)),
        shared=tuple(
            tuple(file.names[index] for index in members) for members in chosen.shared().values() if len(members) > 1
        ),
    )


def _left(chosen: IntegerPlan, kept_weights: Collection[str]) -> Iterator[LeftInFloat]:
    for one in chosen.left:
        yield LeftInFloat(one.name, KEPT_WEIGHTS) if one.name in kept_weights else one


def _returned(file: FloatFile, rounding: Rounding, integer_io: bool) -> dict[int, int]:
    """Return output tensor of the float file → tensor that is returned in its place."""
    found: dict[int, int] = {}
    for name, index in file.wiring.outputs.items():
        if not integer_io:
            found[index] = rounding.as_floats(index)
        elif file.is_float(index) and not rounding.is_whole(index):
            raise TargetError(
                "An output that is computed in float cannot be returned as integers.",
                where=str(file.path),
                found=name,
                expected="an output of an operation that is computed in integers",
                next_step="let the file return float32, or keep fewer operations in float",
            )
    return found


def _read(path: Path, precision: Precision) -> FloatFile:
    require_integers(Target.TFLITE, precision, path)
    try:
        return read_float(path)
    except (OSError, struct.error, IndexError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise unreadable(path, error) from error

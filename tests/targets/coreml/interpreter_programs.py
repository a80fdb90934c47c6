"""Programs for the interpreter's tests: built with coremltools' MIL builder, saved to disk, run from there."""

from __future__ import annotations

import contextlib
import gc
import io
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import coremltools as ct
import numpy as np
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import Function, Program, types

from deploykit.targets.coreml.interpreter import MilInterpreter

Arrays = dict[str, np.ndarray]

_TYPES = {"float32": types.fp32, "float16": types.fp16, "int32": types.int32}


@dataclass(frozen=True)
class Case:
    """One operation with its parameters, its inputs, and what an independent implementation makes of them."""

    operation: str
    label: str
    build: Callable[..., Any]
    inputs: Arrays
    expected: Callable[[], Any]
    target: str = "iOS15"
    tolerance: float = 1e-6

    def __str__(self) -> str:
        return f"{self.operation}-{self.label}" if self.label else self.operation


def random(*shape: int, seed: int = 0, low: float = -2.0, high: float = 2.0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


# The input of most operations.
X = random(2, 3, 4, 5)


@contextlib.contextmanager
def quiet_conversion() -> Any:
    # coremltools writes progress bars, drops a temporary folder without closing it, and uses torch's and its own
    # deprecated functions: none of it is about the program under test. Its garbage collection takes nine tenths
    # of the time of a program of one operation.
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stderr(io.StringIO()),
        mock.patch.object(gc, "collect"),
    ):
        warnings.simplefilter("ignore")
        yield


def save_program(build: Callable[..., Any], inputs: Mapping[str, np.ndarray], path: Path, target: str) -> Path:
    """Save the program that ``build`` makes of its inputs, operation for operation, in float32."""
    opset = getattr(ct.target, target)
    places = {name: mb.placeholder(shape=array.shape, dtype=_TYPES[str(array.dtype)]) for name, array in inputs.items()}
    with Function(places, opset_version=opset) as function:
        results = build(**function.inputs)
        results = list(results) if isinstance(results, list | tuple) else [results]
        function.set_outputs([mb.identity(x=result, name=f"out{i}") for i, result in enumerate(results)])
    program = Program()
    program.add_function("main", function)
    with quiet_conversion():
        model = ct.convert(
            program,
            convert_to="mlprogram",
            compute_precision=ct.precision.FLOAT32,
            minimum_deployment_target=opset,
            pass_pipeline=ct.PassPipeline.EMPTY,
        )
        model.save(str(path))
    return path


def run_program(build: Callable[..., Any], inputs: Mapping[str, np.ndarray], target: str = "iOS15") -> list[np.ndarray]:
    """Return the outputs of the program that ``build`` makes, read back from disk and interpreted."""
    with tempfile.TemporaryDirectory() as folder:
        interpreter = MilInterpreter(save_program(build, inputs, Path(folder) / "case.mlpackage", target))
        found = interpreter.run(inputs)
        return [found[tensor.name] for tensor in interpreter.outputs]


def check(case: Case) -> None:
    """Fail unless the interpreter's outputs equal the expected ones in shape and within the tolerance."""
    expected = case.expected()
    expected = list(expected) if isinstance(expected, list | tuple) else [expected]
    found = run_program(case.build, case.inputs, case.target)
    assert len(found) == len(expected)
    for ours, theirs in zip(found, map(np.asarray, expected), strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs.astype(ours.dtype), rtol=case.tolerance, atol=case.tolerance)


def of(
    name: str,
    label: str,
    expected: Callable[[], Any],
    x: np.ndarray = X,
    target: str = "iOS15",
    tolerance: float = 1e-6,
    **parameters: Any,
) -> Case:
    """The case of an operation whose only input is ``x``, everything else being fixed parameters."""
    return Case(name, label, lambda x: getattr(mb, name)(x=x, **parameters), {"x": x}, expected, target, tolerance)

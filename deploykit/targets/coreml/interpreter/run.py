"""The reference interpreter of Core ML programs: runs an ``.mlpackage`` on any operating system."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deploykit.errors import ArtifactError, TargetError
from deploykit.targets.coreml.interpreter.arguments import UndefinedResultError
from deploykit.targets.coreml.interpreter.declared import ProgramTensor, as_array, from_pixels, rounded, to_pixels
from deploykit.targets.coreml.interpreter.program import Step, evaluate, load_program


@dataclass(frozen=True)
class TracedValue:
    """One value that the program computed: its name in the program, the operation, the value as declared."""

    name: str
    operation: str
    value: NDArray[Any]


class MilInterpreter:
    """A Core ML program read from an ``.mlpackage``, evaluated with PyTorch on the CPU.

    It is the arithmetic of the program as specified. Every operation takes its declared inputs, computes in
    float32 and rounds its result once to the declared type, so an fp16 program rounds after each operation.
    It is not the rounding of the Neural Engine, whose order of summation and inner precision are not published.

    It stands alone, numpy arrays in and out, on any operating system::

        MilInterpreter("net.mlpackage").run({"image": image})["logits"]
    """

    def __init__(self, package: Path | str, half_rounding: bool = True) -> None:
        """Read ``package``; nothing runs yet. ArtifactError for a path that is no readable ML program.

        Without ``half_rounding`` an fp16 program is evaluated in float32 throughout: what it computes from the same
        (half precision) weights and inputs before rounding takes its share. Its values are then float32.
        """
        self._package = Path(package)
        self._program = load_program(self._package, half_rounding)
        self._releases = _releases(self._program.steps)

    @property
    def inputs(self) -> tuple[ProgramTensor, ...]:
        """The inputs as ``run`` takes them."""
        return self._program.inputs

    @property
    def outputs(self) -> tuple[ProgramTensor, ...]:
        """The outputs as ``run`` returns them."""
        return self._program.outputs

    def unknown_operations(self) -> tuple[str, ...]:
        """Return the names of the operations that the interpreter does not know, sorted."""
        return self._program.unknown

    def run(self, inputs: Mapping[str, NDArray[Any]], keep: Collection[str] = ()) -> dict[str, NDArray[Any]]:
        """Return the outputs by name, and with them the intermediate values named in ``keep``.

        An image, input or output, is an array of pixels (height, width, channels); see ``ProgramTensor``.
        ArtifactError: an input is missing, unknown, or of another shape or type than declared; a name in
        ``keep`` is no value of the program; an index lies outside its axis. TargetError: the program holds
        unknown operations (all are named).
        """
        received = self._received(inputs)
        computed = {output.name: output for step in self._program.steps for output in step.outputs}
        declared = {tensor.name: tensor for tensor in (*self._program.received, *self._program.computed)} | computed
        lost = sorted(set(keep) - set(declared))
        if lost:
            raise ArtifactError("the program has no such value", where=str(self._package), found=", ".join(lost))
        wanted = {tensor.name for tensor in self.outputs} | set(keep)
        given = (*self._program.constants.items(), *received.items())
        found = {name: value for name, value in given if name in wanted}
        for _, tensor, value in self._evaluated(received):
            if tensor.name in wanted:
                found[tensor.name] = value
        returned = {tensor.name: _returned(found[tensor.name], tensor) for tensor in self.outputs}
        kept = [name for name in declared if name in set(keep) and name not in returned]
        return returned | {name: as_array(found[name], declared[name].dtype) for name in kept}

    def trace(self, inputs: Mapping[str, NDArray[Any]]) -> Iterator[TracedValue]:
        """Yield every value that depends on the inputs, in the order of the program; errors as ``run``.

        An image output is here the program's tensor, before it becomes pixels.
        """
        for step, tensor, value in self._evaluated(self._received(inputs)):
            yield TracedValue(tensor.name, step.operation, as_array(value, tensor.dtype))

    def _evaluated(self, received: Mapping[str, Tensor]) -> Iterator[tuple[Step, ProgramTensor, Tensor]]:
        known = dict(received)
        for step, released in zip(self._program.steps, self._releases, strict=True):
            try:
                results = evaluate(step, known)
            except UndefinedResultError as error:
                raise ArtifactError(
                    "what the program computes from these inputs is not defined",
                    where=f"{self._package}: {step.operation} {step.outputs[0].name}",
                    found=str(error),
                    expected="arguments for which the operation has a result on every device",
                ) from error
            except Exception as error:
                error.add_note(f"in {step.operation} {step.outputs[0].name} of {self._package}")
                raise
            for tensor, value in zip(step.outputs, results, strict=True):
                known[tensor.name] = value
                yield step, tensor, value
            for name in released:
                del known[name]

    def _received(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
        """Return the checked inputs as the program takes them."""
        if self._program.unknown:
            raise TargetError(
                "the interpreter does not know every operation of this program",
                where=str(self._package),
                found=", ".join(self._program.unknown),
                next_step="run it on macOS, or leave these operations out of the network",
            )
        expected = {tensor.name for tensor in self.inputs}
        if set(inputs) != expected:
            raise ArtifactError(
                "the inputs are not those of the program",
                where=str(self._package),
                found=", ".join(sorted(inputs)) or "none",
                expected=", ".join(sorted(expected)),
            )
        pairs = zip(self.inputs, self._program.received, strict=True)
        return {given.name: self._checked(given, taken, inputs[given.name]) for given, taken in pairs}

    def _checked(self, given: ProgramTensor, taken: ProgramTensor, array: NDArray[Any]) -> Tensor:
        if array.dtype != np.dtype(given.dtype) or not given.accepts(array.shape):
            raise ArtifactError(
                f"input {given.name} has the wrong shape or type",
                where=str(self._package),
                found=f"{array.dtype} {list(array.shape)}",
                expected=f"{given.dtype} {list(given.shape)}",
            )
        value = torch.from_numpy(np.array(array))
        if given.color is not None:
            value = from_pixels(value, given, len(taken.shape))
        return rounded(value, taken.dtype)


def _returned(value: Tensor, output: ProgramTensor) -> NDArray[Any]:
    return as_array(value, output.dtype) if output.color is None else to_pixels(value, output)


def _releases(steps: tuple[Step, ...]) -> tuple[tuple[str, ...], ...]:
    """Return for each step the computed values that nothing needs after it."""
    last = {name: index for index, step in enumerate(steps) for name in (o.name for o in step.outputs)}
    last |= {name: index for index, step in enumerate(steps) for name in step.reads()}
    released: list[list[str]] = [[] for _ in steps]
    for name, index in last.items():
        released[index].append(name)
    return tuple(tuple(names) for names in released)

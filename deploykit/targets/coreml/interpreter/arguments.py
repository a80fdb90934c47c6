"""What an operation of a Core ML program receives: its arguments by name, each read as the type it must have.

Inside the interpreter a value is a tensor of one of three kinds, whatever its declared type: floating point as
float32 (an fp16 value is a float32 that half precision can hold), integers as int64, and bool.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Value = Tensor | str
Argument = Value | Sequence[Value]


class UndefinedResultError(ValueError):
    """The program asks an operation for something whose result its specification leaves open; the message says what."""


@dataclass(frozen=True)
class Arguments:
    """The arguments of one operation; an optional argument that the program leaves out is absent."""

    values: Mapping[str, Argument]

    def has(self, name: str) -> bool:
        """Return whether the program gives the argument."""
        return name in self.values

    def tensor(self, name: str) -> Tensor:
        """Return a tensor argument."""
        value = self.values[name]
        if not isinstance(value, Tensor):
            raise TypeError(f"argument {name} is no tensor: {value!r}")
        return value

    def floating(self, name: str) -> Tensor:
        """Return a tensor argument as float32."""
        return self.tensor(name).to(torch.float32)

    def optional(self, name: str) -> Tensor | None:
        """Return a tensor argument, or None where the program leaves it out."""
        return self.tensor(name) if self.has(name) else None

    def tensors(self, name: str) -> list[Tensor]:
        """Return an argument that is a list of tensors."""
        value = self.values[name]
        if isinstance(value, Tensor | str):
            raise TypeError(f"argument {name} is no list")
        found = [item for item in value if isinstance(item, Tensor)]
        if len(found) != len(value):
            raise TypeError(f"argument {name} holds something that is no tensor")
        return found

    def text(self, name: str) -> str:
        """Return a string argument."""
        value = self.values[name]
        if not isinstance(value, str):
            raise TypeError(f"argument {name} is no string: {value!r}")
        return value

    def integer(self, name: str, default: int | None = None) -> int:
        """Return a scalar integer argument, or ``default`` where the program leaves it out."""
        if default is not None and not self.has(name):
            return default
        return int(self.tensor(name).item())

    def number(self, name: str) -> float:
        """Return a scalar argument as a Python float."""
        return float(self.tensor(name).item())

    def flag(self, name: str, default: bool = False) -> bool:
        """Return a boolean argument, or ``default`` where the program leaves it out."""
        return bool(self.tensor(name).item()) if self.has(name) else default

    def integers(self, name: str) -> list[int]:
        """Return a vector of integers; a scalar counts as a vector of one."""
        return [int(number) for number in self.tensor(name).reshape(-1).tolist()]


Operation = Callable[[Arguments], Tensor | Sequence[Tensor]]


def along_channels(values: Tensor, rank: int) -> Tensor:
    """Return ``values`` (C,) in a shape that broadcasts along axis 1 of a tensor of ``rank``."""
    return values.reshape([1, -1, *[1] * (rank - 2)])

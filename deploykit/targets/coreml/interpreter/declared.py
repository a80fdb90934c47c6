"""The types that a Core ML program declares for its values, and values in those types."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deploykit.targets.coreml.interpreter.arguments import Value

# The data types of the format, by name, as numpy holds them (types narrower than a byte take a whole one).
NUMPY_TYPES = {
    "FLOAT16": "float16",
    "FLOAT32": "float32",
    "BOOL": "bool",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "INT4": "int8",
    "UINT4": "uint8",
    "UINT6": "uint8",
    "UINT3": "uint8",
    "UINT2": "uint8",
    "UINT1": "uint8",
}


class ColorLayout(StrEnum):
    """The channels of an image, in the order in which the program receives or returns them."""

    RGB = "rgb"
    BGR = "bgr"
    GRAYSCALE = "grayscale"


@dataclass(frozen=True)
class ProgramTensor:
    """One value of a program: ``shape`` with -1 for an axis of any size, ``dtype`` as numpy names it.

    With ``color`` it is an image: pixels (height, width, channels) to and from the caller, channels in RGB order or
    one of grey, 8 bits each, or halves where the file says so. Scale and bias are operations of the program.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    color: ColorLayout | None = None

    def accepts(self, shape: tuple[int, ...]) -> bool:
        """Return whether ``shape`` agrees with every axis of fixed size."""
        return len(shape) == len(self.shape) and all(
            declared in (-1, size) for declared, size in zip(self.shape, shape, strict=True)
        )


def as_value(constant: Any) -> Value:
    """Return a constant of a program (numpy array or scalar, Python scalar, string) as the interpreter holds it."""
    if isinstance(constant, str):
        return constant
    array = np.array(constant)
    kind = {"f": np.float32, "i": np.int64, "u": np.int64, "b": np.bool_}[array.dtype.kind]
    return torch.from_numpy(array.astype(kind))


def rounded(value: Tensor, dtype: str) -> Tensor:
    """Return ``value`` as a tensor of the declared type holds it: the one place where fp16 rounds."""
    if dtype == "float16":
        return value.to(torch.float16).to(torch.float32)
    if dtype == "float32":
        return value.to(torch.float32)
    if dtype == "bool":
        return value.to(torch.bool)
    narrow: torch.dtype = getattr(torch, dtype)
    return value.to(narrow).to(torch.int64)


def as_array(value: Tensor, dtype: str) -> NDArray[Any]:
    """Return a copy of ``value`` as a numpy array of the declared type."""
    return value.numpy().astype(dtype, copy=True)


def from_pixels(pixels: Tensor, image: ProgramTensor, rank: int) -> Tensor:
    """Return the pixels of ``image`` (H, W, C) as the program receives them: ([1, ...] C, H, W), of ``rank`` axes."""
    if image.color is ColorLayout.BGR:
        pixels = pixels.flip(-1)
    value = pixels.permute(2, 0, 1)
    return value.reshape([1] * (rank - 3) + list(value.shape))


def to_pixels(value: Tensor, image: ProgramTensor) -> NDArray[Any]:
    """Return a result of the program ([1, ...] C, H, W) as the pixels of ``image`` (H, W, C).

    8-bit pixels are the values rounded to the nearest integer, half to even, and limited to [0, 255]. The format says
    nothing of either.
    """
    pixels = value.reshape(value.shape[-3:]).permute(1, 2, 0)
    if image.color is ColorLayout.BGR:
        pixels = pixels.flip(-1)
    if image.dtype == "uint8":
        pixels = pixels.round().clamp(0, 255)
    return as_array(pixels, image.dtype)

"""The words of the project: targets, precisions, layouts and the shape of a tensor (standard library only)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Target(StrEnum):
    """A file format that deploykit delivers."""

    ONNX = "onnx"
    COREML = "coreml"
    TFLITE = "tflite"
    COREAI = "coreai"


class Precision(StrEnum):
    """The number format in which an artifact holds its weights and, where the format says so, computes."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"
    """w8a8, static: weights per channel and activations per tensor, both in 8 bits; sums in 32."""
    W8A16 = "w8a16"
    """8-bit weights per channel, 16-bit activations."""
    INT8_WEIGHTS = "int8-weights"
    """8-bit weights per channel; the arithmetic stays in floating point."""
    PALETTE6 = "palette6"
    """Weights that point into a table of 64 values; the arithmetic stays in floating point."""
    PALETTE4 = "palette4"
    """Weights that point into a table of 16 values; the arithmetic stays in floating point."""

    @property
    def is_float(self) -> bool:
        """Whether every number of a file is a floating-point number."""
        return self in FLOAT_PRECISIONS

    @property
    def quantizes_activations(self) -> bool:
        """Whether activations are integers too, so that their ranges must be calibrated."""
        return self in (Precision.INT8, Precision.W8A16)


FLOAT_PRECISIONS = (Precision.FP32, Precision.FP16)


class Estimator(StrEnum):
    """How the range of an activation follows from what calibration images made of it."""

    MIN_MAX = "min-max"
    """From the smallest value to the largest."""
    MOVING_AVERAGE = "moving-average"
    """Exponential average of the smallest and the largest value of each image."""
    PERCENTILE = "percentile"
    """All but one in ten thousand values, at either end."""
    ENTROPY = "entropy"
    """The range whose integers keep the distribution: the smallest Kullback-Leibler divergence."""
    MSE = "mse"
    """The range with the smallest mean squared error of its integers."""


class Layout(StrEnum):
    """The order of the axes of an image tensor."""

    NCHW = "nchw"
    NHWC = "nhwc"


class InputKind(StrEnum):
    """What the caller of an artifact hands over.

    ``tensor``: the network's own preprocessed float32 input. ``image``: 8-bit pixels in the recipe's colour
    order, 0 to 255; the preprocessing is inside the file.
    """

    TENSOR = "tensor"
    IMAGE = "image"


class OutputKind(StrEnum):
    """What the artifact returns for each output.

    ``logits``: the network's own scores. ``probability``: of two classes that of the second, the sigmoid of the
    difference of their scores, (N, 1, H, W); of more the softmax, (N, C, H, W); of a single score its sigmoid.
    ``mask``: the number of the best class, (N, 1, H, W); for two classes, or a single score above 0, that is 0 or 1.
    Always float32: no runtime and no accelerator lacks it as an output, as each of them lacks some integer type.
    """

    LOGITS = "logits"
    PROBABILITY = "probability"
    MASK = "mask"


class Convention(StrEnum):
    """What a count of operations counts; ``deploykit.graph.conventions`` has the rules and the source of each."""

    MACS = "macs"
    CONV_MACS = "conv-macs"
    PORTRAITNET_PAPER = "portraitnet-paper"
    MMENGINE = "mmengine"


class ColorOrder(StrEnum):
    """The order of the channels of a colour image."""

    RGB = "rgb"
    BGR = "bgr"


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a file: ``shape`` in ``layout`` order, ``dtype`` as numpy names it."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    layout: Layout = Layout.NCHW


def in_words(count: int, noun: str) -> str:
    """Return ``count`` of a ``noun`` whose plural ends in s: 1 frame, 2 frames."""
    return f"{count} {noun}{'' if count == 1 else 's'}"

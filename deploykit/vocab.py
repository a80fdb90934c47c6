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
    """What the artifact returns: the network's logits."""

    LOGITS = "logits"


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

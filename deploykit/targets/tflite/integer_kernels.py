"""What LiteRT computes in integers: its kernels for int8 and int16 activations, as data.

Sources: the quantization specification of TensorFlow Lite, and the Prepare functions of its kernels.
"""

from __future__ import annotations

from dataclasses import dataclass

from deploykit.targets.quantized import Range


@dataclass(frozen=True)
class Weights:
    """The positions of activation, weight and bias among the inputs, and the axis of the weight with its channels."""

    read: int
    weight: int
    bias: int
    axis: int


@dataclass(frozen=True)
class Kernel:
    """How an operation is computed in integers.

    ``same``: what it reads and makes has one range. ``moves``: it computes nothing, so that it is integers only where
    what it reads is. ``makes`` is the range of its value where the kernel fixes it. ``wide``: it also takes int16.
    """

    weights: Weights | None = None
    same: bool = False
    moves: bool = False
    makes: Range | None = None
    wide: bool = True


_ANY = Kernel()
_SAME = Kernel(same=True)
_MOVES = Kernel(same=True, moves=True)
_UNIT, _SIGNED_UNIT = Range(0, 1), Range(-1, 1)

KERNELS: dict[str, Kernel] = {
    "CONV_2D": Kernel(Weights(0, 1, 2, 0)),
    "DEPTHWISE_CONV_2D": Kernel(Weights(0, 1, 2, 3)),
    "TRANSPOSE_CONV": Kernel(Weights(2, 1, 3, 0)),
    "FULLY_CONNECTED": Kernel(Weights(0, 1, 2, 0)),
    "ADD": _ANY,
    "SUB": _ANY,
    "MUL": _ANY,
    "BATCH_MATMUL": _ANY,
    "MEAN": _ANY,
    "SUM": _ANY,
    "RELU": _ANY,
    "RELU6": _ANY,
    "LEAKY_RELU": _ANY,
    "ABS": _ANY,
    "HARD_SWISH": Kernel(wide=False),
    "LOGISTIC": Kernel(makes=_UNIT),
    "SOFTMAX": Kernel(makes=_UNIT),
    "TANH": Kernel(makes=_SIGNED_UNIT),
    "AVERAGE_POOL_2D": _SAME,
    "MAX_POOL_2D": _SAME,
    "RESIZE_BILINEAR": _SAME,
    "RESIZE_NEAREST_NEIGHBOR": _SAME,
    "MAXIMUM": _SAME,
    "MINIMUM": _SAME,
    "REDUCE_MAX": _SAME,
    "CONCATENATION": _MOVES,
    "RESHAPE": _MOVES,
    "TRANSPOSE": _MOVES,
    "SQUEEZE": _MOVES,
    "EXPAND_DIMS": _MOVES,
    "SLICE": _MOVES,
    "STRIDED_SLICE": _MOVES,
    "SPLIT": _MOVES,
    "PAD": _MOVES,
    "GATHER": _MOVES,
    "PACK": _MOVES,
    "UNPACK": _MOVES,
    "DEPTH_TO_SPACE": Kernel(same=True, moves=True, wide=False),
    "SPACE_TO_DEPTH": Kernel(same=True, moves=True, wide=False),
}

# They have an integer kernel that costs more time and accuracy than QUANTIZE, DEQUANTIZE and the float kernel between:
# SINet with its 36 PRELU takes 182 ms with it and 48 without, where float32 takes 36 (x86, the runs interleaved).
SLOW = ("PRELU",)

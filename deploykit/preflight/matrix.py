"""The support matrix as data: what becomes of each construct on each target, at each precision.

A cell that is not listed is exact: exported as it is, equal within the tolerance of its precision. Code reads the
table, tests export every cell of it, docs/support.md is made from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from deploykit.preflight.constructs import CONSTRUCTS
from deploykit.vocab import FLOAT_PRECISIONS, Precision, Target

ONNX, COREML, TFLITE, COREAI = Target.ONNX, Target.COREML, Target.TFLITE, Target.COREAI


@dataclass(frozen=True)
class Cell:
    """What becomes of one construct: rewritten by ``passes``, or ``refused`` for a reason, or neither: exact."""

    passes: tuple[str, ...] = ()
    refused: str = ""

    @property
    def stated(self) -> str:
        """What the cell states, in a word: exact, rewritten or refused."""
        return "refused" if self.refused else "rewritten" if self.passes else "exact"


EXACT = Cell()


def _by(*passes: str) -> Cell:
    return Cell(passes)


def _no(reason: str) -> Cell:
    return Cell(refused=reason)


# Rewritten for every target, before the target's own passes.
SIMPLIFIED: dict[str, Cell] = {
    "conv + BatchNorm": _by("fold_batch_norm"),
    "parallel branches": _by("fold_batch_norm", "merge_branches"),
}

CELLS: dict[str, dict[Target, Cell]] = {
    "circular padding": {COREML: _by("circular_padding")},
    "transposed conv, output_padding": {TFLITE: _by("plain_transposed_convolution")},
    "transposed conv, cropped unevenly": {TFLITE: _by("plain_transposed_convolution")},
    "transposed conv, dilated": {TFLITE: _by("plain_transposed_convolution")},
    "PReLU on maps": {COREAI: _by("prelu_by_slope")},
    "PReLU on vectors": {COREML: _by("prelu_on_vectors"), COREAI: _by("prelu_by_slope")},
    "GELU, tanh": {COREML: _by("gelu_by_tanh")},
    "standard deviation": {COREAI: _no("the converter knows no variance")},
    "L2 normalise": {TFLITE: _by("keepdim_reductions")},
    "max over channels, expanded": {TFLITE: _by("keepdim_reductions", "constant_on_the_right")},
    "constant minus conv": {TFLITE: _by("constant_on_the_right")},
    "constant over conv": {COREML: _by("reciprocal_as_division"), TFLITE: _by("constant_on_the_right")},
    "max pooling, ceil_mode": {TFLITE: _by("ceil_max_pooling")},
    "max pooling, dilated": {COREML: _no("Core ML's max pooling has no dilation")},
    "max pooling with indices": {
        COREML: _no("the converter knows no max_unpool2d"),
        TFLITE: _no("LiteRT does not load the file: it cannot broadcast the positions"),
        COREAI: _no("the converted file puts the values elsewhere"),
    },
    "average pooling, border not counted": {COREAI: _by("average_pooling_border")},
    "global pooling": {
        TFLITE: _by("global_average_pooling"),
        COREAI: _by("global_average_pooling_by_window"),
    },
    "average pooling, ceil_mode": dict.fromkeys((TFLITE, COREAI), _by("ceil_average_pooling")),
    "average pooling, ceil_mode, padded": dict.fromkeys((TFLITE, COREAI), _by("ceil_average_pooling")),
    "average pooling, divisor": {
        ONNX: _by("average_pooling_divisor"),
        COREML: _by("average_pooling_divisor"),
    },
    "adaptive pooling, dividing": dict.fromkeys(Target, _by("adaptive_pooling")),
    "adaptive pooling, not dividing": dict.fromkeys(Target, _by("adaptive_pooling")),
    "area resize": dict.fromkeys(Target, _by("adaptive_pooling")),
    "adaptive max pooling, dividing": dict.fromkeys((ONNX, TFLITE, COREAI), _by("adaptive_max_pooling")),
    "adaptive max pooling, not dividing": dict.fromkeys((ONNX, TFLITE, COREAI), _by("adaptive_max_pooling")),
    "bilinear resize by a factor": dict.fromkeys((COREML, TFLITE, COREAI), _by("resize_as_products")),
    "bilinear resize, antialias": dict.fromkeys((COREML, TFLITE, COREAI), _by("resize_as_products")),
    "bicubic resize": dict.fromkeys((COREML, TFLITE, COREAI), _by("resize_as_products")),
    "bicubic resize, align_corners": dict.fromkeys((COREML, TFLITE, COREAI), _by("resize_as_products")),
    "nearest resize, uneven": dict.fromkeys((TFLITE, COREAI), _by("nearest_by_index")),
    "nearest-exact resize": {
        COREML: _by("resize_as_products"),
        **dict.fromkeys((TFLITE, COREAI), _by("nearest_by_index")),
    },
    "pixel unshuffle": {COREML: _by("pixel_unshuffle_as_convolution")},
    "grid_sample": dict.fromkeys((TFLITE, COREAI), _by("grid_sample_by_gather")),
    "grid_sample, align_corners": dict.fromkeys((TFLITE, COREAI), _by("grid_sample_by_gather")),
    "grid_sample, border": dict.fromkeys((TFLITE, COREAI), _by("grid_sample_by_gather")),
    "grid_sample, reflection": {
        TFLITE: _no("the converter cannot write the reflection"),
        COREAI: _no("the converter knows no bitwise_and"),
    },
    "fold": {
        COREML: _no("the converter folds only patches that do not overlap"),
        COREAI: _no("the converter puts no values on top of each other"),
    },
    "gather": {COREAI: _no("the converter knows no sort")},
    "sort": {COREAI: _no("the converter knows no sort")},
    "grid_sample, bicubic": {COREML: _no("Core ML's resample has no bicubic mode")},
}

# Where one precision differs from the others.
AT_PRECISION: dict[tuple[str, Target, Precision], Cell] = {}


def cell(construct: str, target: Target, precision: Precision) -> Cell:
    """Return what the matrix states for ``construct``."""
    stated = AT_PRECISION.get((construct, target, precision))
    return stated or CELLS.get(construct, {}).get(target) or SIMPLIFIED.get(construct, EXACT)


def cells() -> Iterator[tuple[str, Target, Precision, Cell]]:
    """Yield every cell: construct, target, precision and what is stated."""
    for construct in CONSTRUCTS:
        for target in Target:
            for precision in FLOAT_PRECISIONS:
                yield construct, target, precision, cell(construct, target, precision)

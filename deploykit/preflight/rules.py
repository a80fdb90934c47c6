"""What is known of constructs and targets beside what the converters themselves say, as data.

A rule is about the operations that are left when deploykit has rewritten what it can. ``REFUSED`` rules name what a
converter registers and still cannot convert; each is a cell of the support matrix, which ``make test-full`` exports.
"""

from __future__ import annotations

from typing import Any

from deploykit.preflight.neural_engine import NEURAL_ENGINE
from deploykit.preflight.predicates import (
    dilated_pooling,
    grouped,
    of_rank,
    of_rank_above,
    option,
    overlapping,
    undone_later,
)
from deploykit.preflight.records import Verdict
from deploykit.preflight.rule import REFUSED, Rule
from deploykit.vocab import Precision, Target

MATRIX = "docs/support.md"
NEAREST = 1
BICUBIC = REFLECTION = 2
_SAMPLERS = ("grid_sampler", "grid_sampler_2d")


def _refused(
    construct: str, operations: tuple[str, ...], target: Target, reason: str, *, source: str = MATRIX, **more: Any
) -> Rule:
    return Rule(construct, operations, target, Verdict.REFUSED, reason, source, done=REFUSED, **more)


REFUSALS: tuple[Rule, ...] = (
    _refused(
        "tensor of 6 axes",
        (),
        Target.COREML,
        "Core ML takes tensors of at most 5 axes",
        source="https://github.com/apple/coremltools/issues/2536",
        holds=of_rank_above(5),
    ),
    _refused(
        "grid_sample, bicubic",
        _SAMPLERS,
        Target.COREML,
        "Core ML's resample has no bicubic mode",
        holds=option(2, "interpolation_mode", BICUBIC),
    ),
    _refused(
        "grid_sample, reflection",
        _SAMPLERS,
        Target.TFLITE,
        "the converter cannot write the reflection",
        holds=option(3, "padding_mode", REFLECTION),
    ),
    _refused(
        "max pooling, dilated",
        ("max_pool2d", "max_pool2d_with_indices"),
        Target.COREML,
        "Core ML's max pooling has no dilation",
        holds=dilated_pooling,
    ),
    _refused(
        "fold",
        ("col2im",),
        Target.COREML,
        "the converter folds only patches that do not overlap",
        holds=overlapping,
    ),
    _refused("fold", ("col2im",), Target.COREAI, "the converter puts no values on top of each other"),
    _refused(
        "max unpooling",
        ("max_unpool2d",),
        Target.TFLITE,
        "the converted file does not load: LiteRT cannot broadcast its positions",
    ),
    _refused(
        "max unpooling",
        ("max_unpool2d",),
        Target.COREAI,
        "the converted file puts the values elsewhere",
    ),
)

MANY: tuple[Rule, ...] = (
    Rule(
        "transposed conv in groups",
        ("conv_transpose2d",),
        Target.TFLITE,
        Verdict.MANY,
        "one TRANSPOSE_CONV and one slice for each group",
        MATRIX,
        grouped,
    ),
    Rule(
        "transpose of 5 axes",
        ("permute", "transpose"),
        Target.TFLITE,
        Verdict.MANY,
        "between channels-last maps, it costs up to three more TRANSPOSE",
        MATRIX,
        of_rank(5),
    ),
    *(
        Rule(
            "transpose pair",
            ("permute", "transpose"),
            target,
            Verdict.MANY,
            "a transpose that is undone a few operations later: both copy the whole map",
            MATRIX,
            undone_later,
        )
        for target in (Target.ONNX, Target.COREML)
    ),
)

SLOW: tuple[Rule, ...] = (
    Rule(
        "PReLU",
        ("prelu",),
        Target.ONNX,
        Verdict.ADVISORY,
        "ONNX Runtime's PRelu is slow on a CPU and interrupts its blocked layout",
        MATRIX,
    ),
)

ROUNDED = tuple(
    Rule(
        "grid_sample, nearest",
        _SAMPLERS,
        target,
        Verdict.ADVISORY,
        "positions in half precision choose other pixels near the middle between two",
        MATRIX,
        option(2, "interpolation_mode", NEAREST),
        (Precision.FP16,),
    )
    for target in Target
)

ADVICE: tuple[Rule, ...] = (*SLOW, *ROUNDED, *NEURAL_ENGINE)

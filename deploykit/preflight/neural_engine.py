"""What is publicly known of constructs that Core ML does not run on the Neural Engine: advice, never a refusal.

Apple publishes no list, and says why: what runs where depends on the device, the system and the sizes
(https://github.com/apple/coremltools/issues/1780). Xcode's performance report on the device at hand decides.
"""

from __future__ import annotations

from deploykit.preflight.predicates import Predicate, always, dilated, last_axis_of_one, of_rank
from deploykit.preflight.records import Verdict
from deploykit.preflight.rule import Rule
from deploykit.vocab import Precision, Target

TYPED_EXECUTION = "https://apple.github.io/coremltools/docs-guides/source/typed-execution-example.html"
TRANSFORMERS = "https://machinelearning.apple.com/research/neural-engine-transformers"
RESIDENCY_NOTE = (
    "which operations run on the Neural Engine depends on the device, the system and the sizes: "
    "Xcode's performance report on the device decides (https://github.com/apple/coremltools/issues/1780)"
)


def _off(construct: str, operations: tuple[str, ...], reason: str, source: str, holds: Predicate = always) -> Rule:
    return Rule(construct, operations, Target.COREML, Verdict.ADVISORY, reason, source, holds, (Precision.FP16,))


# A float32 program as a whole is off the Neural Engine, so that the others are said of float16 alone.
WHOLE_PROGRAM: tuple[Rule, ...] = (
    Rule(
        "the whole program",
        (),
        Target.COREML,
        Verdict.ADVISORY,
        "a float32 program runs on the CPU and the GPU alone; a float16 one is eligible for the Neural Engine",
        TYPED_EXECUTION,
        always,
        (Precision.FP32,),
        "as asked for; --precision fp16 makes the other",
    ),
)

NEURAL_ENGINE: tuple[Rule, ...] = (
    _off(
        "grid_sample",
        ("grid_sampler", "grid_sampler_2d"),
        "Core ML's resample was seen to run on the CPU",
        "https://github.com/apple/coremltools/issues/1875",
    ),
    _off(
        "gather",
        ("gather", "index", "index_select", "embedding", "take_along_dim"),
        "gathering by index was seen to run on the CPU",
        "https://github.com/apple/coremltools/issues/1103",
    ),
    _off(
        "sorting",
        ("topk", "sort", "argsort"),
        "top k, and the gathering by what it returns, were measured to leave the Neural Engine",
        "https://github.com/roboflow/rf-detr/pull/1495",
    ),
    _off(
        "dilated conv",
        ("conv1d", "conv2d", "convolution"),
        "dilated convolutions were seen to leave the Neural Engine of older devices",
        "https://github.com/hollance/neural-engine/blob/master/docs/unsupported-layers.md",
        dilated,
    ),
    _off(
        "recurrent layer",
        ("lstm", "gru", "rnn_tanh", "rnn_relu"),
        "recurrent layers do not run on the Neural Engine",
        "https://github.com/apple/coremltools/issues/1780",
    ),
    _off(
        "transpose of 5 axes",
        ("permute", "transpose"),
        "the Neural Engine is made for 4 axes, channels first; reshapes and transposes copy memory",
        TRANSFORMERS,
        of_rank(5),
    ),
    _off(
        "last axis of one",
        (),
        "the last axis is padded to 64 bytes: 32 times the memory where it is one half-precision value",
        TRANSFORMERS,
        last_axis_of_one,
    ),
)

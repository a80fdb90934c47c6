"""What each exact form of a construct costs on each target, precision and accelerator, and so which one is taken.

The figures are those of ``benchmarks/results/lowering_costs.json``, which ``benchmarks/lowering_costs.py`` measures.
What cannot be measured there (a GPU, the Neural Engine) takes the form with the fewest operations in the file: what
wins in float32 on one processor can lose on another, or add points at which values are quantized.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from deploykit.resources import bundled
from deploykit.vocab import Precision, Target

FILE = Path("results") / "lowering_costs.json"

CPU = "CPU"
PLAIN = "plain"
# A form is taken where it saves so much over all its cases, and nowhere costs more than the noise of measuring.
WORTH = 1.05
NEVER_BELOW = 0.97

UNMEASURED = "unmeasured: fewest operations"
# Accelerators that a file of a target runs on and that are not at hand.
ELSEWHERE: Mapping[Target, tuple[str, ...]] = {
    Target.ONNX: (),
    Target.TFLITE: ("GPU delegate",),
    Target.COREML: ("CPU", "GPU", "Neural Engine"),
    Target.COREAI: ("CPU", "GPU", "Neural Engine"),
}
# Where a file is run if nobody says otherwise: its forms are chosen for that.
DEFAULT: Mapping[Target, str] = {
    Target.ONNX: CPU,
    Target.TFLITE: CPU,
    Target.COREML: "Neural Engine",
    Target.COREAI: "Neural Engine",
}


@dataclass(frozen=True)
class Form:
    """One way to write a construct: by ``passes`` on the graph and ``on_file``; by neither it is only measured.

    ``targets`` may choose it; for the others it is measured for comparison, its gain there being noise or another's.
    """

    name: str
    passes: tuple[str, ...] = ()
    on_file: tuple[str, ...] = ()
    targets: tuple[Target, ...] = tuple(Target)

    def is_open_to(self, target: Target) -> bool:
        """Whether an export to ``target`` can write this form."""
        return self.name == PLAIN or (bool(self.passes or self.on_file) and target in self.targets)


_PHASES = "transposed_convolution_by_phases"
_OVERLAPPING = "overlapping_transposed_convolution_by_phases"
_BLOCKS = "convolution_in_blocks"
_TRANSPOSES = "pixel_shuffle_by_transposes"
_LAST = "pixel_shuffle_channels_last"
_WIDE = "wide_pixel_shuffle_channels_last"
_OPERATOR = "depth_to_space_operator"
_SHUFFLES = (
    Form("two transposes", (_TRANSPOSES,), targets=(Target.ONNX,)),
    Form("channels last", (_LAST,), targets=(Target.TFLITE,)),
    Form("operator", (_LAST,), (_OPERATOR,), targets=(Target.TFLITE,)),
    Form("by width", (_WIDE, _TRANSPOSES), targets=(Target.ONNX,)),
)
_TRANSPOSED = (
    Form("phases, two transposes", (_PHASES, _TRANSPOSES), targets=(Target.ONNX,)),
    Form("phases, channels last", (_PHASES, _LAST), targets=(Target.TFLITE,)),
    Form("overlapping phases, two transposes", (_OVERLAPPING, _TRANSPOSES), targets=(Target.ONNX,)),
    Form("overlapping phases, by width", (_OVERLAPPING, _WIDE, _TRANSPOSES), targets=(Target.ONNX,)),
)

# Construct → the forms that passes write; the benchmark knows further ones, which it measures beside them.
CONSTRUCTS: Mapping[str, tuple[Form, ...]] = {
    "PReLU of an image": (
        Form("relu_sum", ("prelu_as_relu_sum",)),
        Form("operator", on_file=("prelu_operator",)),
    ),
    "PReLU of one slope": (
        Form("leaky_relu", ("prelu_as_leaky_relu",), targets=(Target.ONNX, Target.TFLITE)),
        Form("relu_sum", ("prelu_as_relu_sum",)),
        Form("operator", on_file=("prelu_operator",)),
    ),
    "dense transposed convolution, stride 2": _TRANSPOSED,
    "depthwise transposed convolution, stride 2": _TRANSPOSED,
    "3x3 convolution to few channels": (
        Form("blocks", (_BLOCKS,)),
        Form("blocks, two transposes", (_BLOCKS, _TRANSPOSES), targets=(Target.ONNX,)),
        Form("blocks, channels last", (_BLOCKS, _LAST), targets=(Target.TFLITE,)),
        Form("blocks, by width", (_BLOCKS, _WIDE, _TRANSPOSES), targets=(Target.ONNX,)),
    ),
    "pixel shuffle by 2 of a convolution": _SHUFFLES,
    "softmax over two classes": (Form("sigmoid", ("two_class_softmax",)),),
    "maximum of a softmax over two classes": (Form("sigmoid", ("two_class_softmax",)),),
    "h-swish": (Form("clamp", ("hard_activations_by_clamp",)),),
    "hard sigmoid": (Form("clamp", ("hard_activations_by_clamp",)),),
    "squeeze-excite": (),
    "3x3 convolution, stride 2, padding 1": (),
    "depthwise 3x3 convolution, stride 2, padding 1": (),
    "BatchNorm after a sum": (),
    "grouped 1x1 convolution": (),
    "grid_sample": (Form("gather", ("grid_sample_by_gather",)),),
    "adaptive average pooling": (),
}


@dataclass(frozen=True)
class Cost:
    """What one form costs: operations in its files, and the time of the plain form over its own, over all cases.

    ``ratio`` is the geometric mean of the cases' median ratios, ``lowest`` the lowest end of their 95 % intervals;
    None where it was not measured, or the converter takes some case in one form only.
    """

    form: Form
    operations: int | None
    ratio: float | None = None
    lowest: float | None = None


@dataclass(frozen=True)
class Entry:
    """The costs of one construct in one place, the form that is ``chosen``, and on which grounds."""

    construct: str
    target: Target
    precision: Precision
    accelerator: str
    costs: tuple[Cost, ...]
    chosen: Form
    grounds: str


@cache
def table() -> tuple[Entry, ...]:
    """Return every entry: what was measured, then the accelerators that are not at hand."""
    measured = json.loads((bundled("benchmarks") / FILE).read_text("utf-8"))["body"]
    grouped: dict[tuple[str, Target, Precision], list[dict[str, Any]]] = {}
    for row in measured["rows"]:
        key = (row["construct"], Target(row["target"]), Precision(row["precision"]))
        grouped.setdefault(key, []).append(row["forms"])
    entries = []
    for (construct, target, precision), cases in grouped.items():
        costs = tuple(_cost(form, cases) for form in _forms(construct, cases))
        if any(cost.ratio is not None for cost in costs):
            fastest = _fastest(costs, target)
            entries.append(Entry(construct, target, precision, CPU, costs, fastest, measured["machine"]))
        for accelerator in ELSEWHERE[target]:
            counted = tuple(Cost(cost.form, cost.operations) for cost in costs)
            fewest = _fewest(counted, target)
            entries.append(Entry(construct, target, precision, accelerator, counted, fewest, UNMEASURED))
    return tuple(entries)


def chosen_passes(target: Target, precision: Precision, accelerator: str | None = None) -> frozenset[str]:
    """Return the names of the passes that write the forms chosen for files of ``target`` on ``accelerator``.

    Without ``accelerator`` it is the one that the target's files usually run on.
    """
    place = (target, precision, accelerator or DEFAULT[target])
    rows = [entry for entry in table() if (entry.target, entry.precision, entry.accelerator) == place]
    return frozenset(name for entry in rows for name in (*entry.chosen.passes, *entry.chosen.on_file))


def _forms(construct: str, cases: list[dict[str, Any]]) -> tuple[Form, ...]:
    names = dict.fromkeys(name for case in cases for name in case)
    known = {form.name: form for form in CONSTRUCTS[construct]}
    return tuple(known.get(name, Form(name)) for name in names)


def _cost(form: Form, cases: list[dict[str, Any]]) -> Cost:
    found = [case.get(form.name) for case in cases]
    whole = [one for one in found if one is not None]
    if len(whole) < len(found):
        return Cost(form, None)
    operations = sum(one["operations"] for one in whole)
    if any(one["ratio"] is None for one in whole):
        return Cost(form, operations)
    mean = math.exp(sum(math.log(one["ratio"]) for one in whole) / len(whole))
    return Cost(form, operations, mean, min(one["low"] for one in whole))


def _fastest(costs: tuple[Cost, ...], target: Target) -> Form:
    """Return the form that saves most where it is worth it and never slower, or the plain one."""
    best, plain = WORTH, Form(PLAIN)
    for cost in costs:
        if cost.ratio is None or cost.lowest is None or not cost.form.is_open_to(target):
            continue
        if cost.lowest >= NEVER_BELOW and cost.ratio > best:
            best, plain = cost.ratio, cost.form
    return plain


def _fewest(costs: tuple[Cost, ...], target: Target) -> Form:
    written = [cost for cost in costs if cost.form.is_open_to(target) and cost.operations is not None]
    least = min((cost.operations for cost in written if cost.operations is not None), default=0)
    fewest = [cost.form for cost in written if cost.operations == least]
    return next((form for form in fewest if form.name == PLAIN), fewest[0] if fewest else Form(PLAIN))

"""The probe for one verified file: what of it can be probed, and what its caller may have got wrong instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from deploykit.recipe import Input
from deploykit.targets.base import Array
from deploykit.verification.bind_outputs import OutputBinding
from deploykit.verification.judge import Bounds, OpenFile, judge
from deploykit.verification.probe import ProbeCase, Say, probe
from deploykit.verification.records import OutputForm, OutputVerification, Probe, ProbeVerdict
from deploykit.verification.reference import FileReference, Reference
from deploykit.verification.sizes import Sizes
from deploykit.verify.contract import contracted, holds_probabilities, softmax
from deploykit.verify.reference import Outputs
from deploykit.verify.samples import Sample
from deploykit.vocab import InputKind, OutputKind


@dataclass(frozen=True)
class Judged:
    """A file and its reference on the same ``samples``, with the verdicts on the bound outputs."""

    file: OpenFile
    reference: Reference
    sizes: Sizes
    samples: Sequence[Sample]
    expected: Sequence[Outputs]
    bindings: Sequence[OutputBinding]
    outputs: Sequence[OutputVerification]
    bounds: Bounds


def probe_file(judged: Judged, say: Say) -> Probe:
    """Return what the probe images say of the file's first image input whose preprocessing is not the recipe's."""
    reason = _nothing_to_probe(judged)
    if reason:
        return Probe(ProbeVerdict.SKIPPED, reason)
    found = [_probe_input(judged, item, say) for item in _pixel_inputs(judged)]
    return next((one for one in found if one.verdict is not ProbeVerdict.AGREES), found[0])


def _nothing_to_probe(judged: Judged) -> str:
    if not any(item.kind == "image" for item in judged.file.recipe.file.inputs):
        return "the recipe has no image input, so that there is no preprocessing"
    if not _pixel_inputs(judged):
        names = ", ".join(f"{one.file_input} ({one.dtype})" for one in judged.file.inputs)
        return f"the file takes tensors that its caller preprocessed, {names}: no preprocessing is inside"
    if isinstance(judged.reference, FileReference) and judged.reference.takes_pixels:
        return "the file that it is compared with preprocesses by itself: compare each with its checkpoint"
    if not judged.bindings or not all(one.fits for one in judged.bindings):
        return "the outputs have other shapes than the reference's"
    if any(one.form is OutputForm.MASK for one in judged.outputs):
        return "a mask tells too little of what came in: probe the file that gives logits"
    return ""


def _pixel_inputs(judged: Judged) -> list[Input]:
    pixels = {one.input for one in judged.file.inputs if one.kind is InputKind.IMAGE}
    return [item for item in judged.sizes.network_recipe.file.inputs if item.name in pixels]


def _probe_input(judged: Judged, item: Input, say: Say) -> Probe:
    forms = {one.output: one.form for one in judged.outputs}
    shape = next(one.shape for one in judged.file.recipe.file.inputs if one.name == item.name)
    # Noise in the inputs that are no images would hide what the images do.
    index = next((i for i, sample in enumerate(judged.samples) if sample.picture), 0)
    template = judged.samples[index]

    def run_file(sample: Sample) -> Mapping[str, NDArray[np.floating]]:
        values: dict[str, Array] = judged.file.run(sample)
        return {one.output.name: one.in_network_order(values[one.file_output]) for one in judged.bindings}

    def run_reference(sample: Sample) -> Mapping[str, NDArray[np.floating]]:
        (values,) = judged.reference.outputs([sample], judged.sizes.network_recipe)
        return {name: _in_form(values[name], form) for name, form in forms.items()}

    case = ProbeCase(
        spec=item,
        size=(shape[-2], shape[-1]),
        template=template,
        reference_template=judged.sizes.for_network(template),
        run_file=run_file,
        run_reference=run_reference,
        tolerance=judged.bounds.tolerance,
    )
    return probe(case, say)


def _in_form(values: NDArray[np.floating], form: OutputForm) -> NDArray[np.floating]:
    if form is OutputForm.SIGMOID:
        return contracted(values, OutputKind.PROBABILITY)
    return values if form is OutputForm.NETWORK or holds_probabilities([values]) else softmax(values)


def hint_of_input(judged: Judged) -> str:
    """Return what the file's float input takes, if with that instead of the network's tensor it passes; else ''."""
    images = {item.name for item in judged.file.recipe.file.inputs if item.kind == "image"}
    tensors = {one.input for one in judged.file.inputs if one.kind is InputKind.TENSOR} & images
    if not tensors or all(one.passed for one in judged.outputs) or not all(one.fits for one in judged.bindings):
        return ""
    for words, factor in (("pixels from 0 to 255", 1.0), ("pixels divided by 255, from 0 to 1", 1 / 255)):
        for order, step in (("", 1), (" in the other order of channels", -1)):
            given = [_with_pixels(sample, tensors, factor, step) for sample in judged.samples]
            values = [judged.file.run(sample) for sample in given]
            outputs = judge(judged.bindings, values, judged.expected, judged.samples, judged.bounds)
            if all(one.passed for one in outputs):
                more = "; with --input-kind image it is given those" if factor == step == 1 else ""
                return f"the file agrees when its float input is given {words}{order}: it preprocesses by itself{more}"
    return ""


def _with_pixels(sample: Sample, names: set[str], factor: float, step: int) -> Sample:
    given = {
        name: (sample.pixels[name][:, :, ::step].transpose(2, 0, 1)[None] * factor).astype(np.float32) for name in names
    }
    return replace(sample, tensors={**sample.tensors, **given})

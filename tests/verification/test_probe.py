"""A file that preprocesses wrongly is told apart from one that does not, and the mistake is named."""

from __future__ import annotations

import re
from functools import cache

import numpy as np
import pytest
from verification_cases import bare, replace_weight, weight_of

from deploykit.lowering import ExportOptions
from deploykit.pipeline import Exporter
from deploykit.verification import verify
from deploykit.verification.records import ProbeVerdict
from deploykit.vocab import InputKind, Precision, Target

FULL = pytest.mark.full
IMAGE = ExportOptions(input_kind=InputKind.IMAGE)
MEAN, SCALE = np.array([104.0, 117.0, 123.0]), np.array([0.017, 0.0195, 0.0221])
MISTAKES = {
    "the channels are swapped (RGB and BGR)": {"flipped": True},
    "the division by 255 is missing, the mean is subtracted": {"scale": tuple(SCALE * 255)},
    "the division by 255 is missing before a mean of 0 to 1": {
        "mean": tuple(MEAN / 255),
        "scale": tuple(SCALE * 255),
    },
    "no mean is subtracted": {"mean": (0.0,)},
    "the mean is in the reverse order of channels": {"mean": tuple(MEAN[::-1])},
    "the standard deviation is in the reverse order of channels": {"scale": tuple(SCALE[::-1])},
    "mean and standard deviation are those of ImageNet": {
        "mean": (103.53, 116.28, 123.675),
        "scale": (1 / 57.375, 1 / 57.12, 1 / 58.395),
    },
    "pixels are brought to -1 to 1": {"mean": (127.5,), "scale": (1 / 127.5,)},
    "pixels are only divided by 255": {"scale": (1 / 255,), "mean": (0.0,)},
    "pixels are taken as they are": {"scale": (1.0,), "mean": (0.0,)},
    "the channels are swapped (RGB and BGR), and no mean is subtracted": {
        "mean": (0.0,),
        "flipped": True,
    },
}
NAMES = list(MISTAKES)
SWAPPED, MISSING, REVERSED = NAMES[0], NAMES[1], NAMES[4]
PLAIN = {
    Target.ONNX: (SWAPPED, MISSING),
    Target.COREML: (SWAPPED,),
    Target.TFLITE: (REVERSED,),
    Target.COREAI: (),
}
CELLS = [
    pytest.param(
        target,
        name,
        marks=() if name in PLAIN[target] else FULL,
        id=f"{target}-{index}",
    )
    for target in Target
    for index, name in enumerate(MISTAKES)
]


# Mistakes that nobody has a name for: what is changed, and what is said.
ARBITRARY = {
    "the mean is 95, 130, 118 instead of 104, 117, 123": {"mean": (95.0, 130.0, 118.0)},
    "the scale is 0.021, 0.0165, 0.0189 instead of 0.017, 0.0195, 0.0221": {"scale": (0.021, 0.0165, 0.0189)},
    "the mean is 80, 130, 99 instead of 104, 117, 123, and the scale is 0.011, 0.0205, 0.0199 instead of 0.017, "
    "0.0195, 0.0221": {"mean": (80.0, 130.0, 99.0), "scale": (0.011, 0.0205, 0.0199)},
    "the channels are swapped (RGB and BGR), and the mean is 95, 130, 118 instead of 104, 117, 123": {
        "mean": (95.0, 130.0, 118.0),
        "flipped": True,
    },
}


@pytest.fixture(scope="module")
def exporter(case):
    @cache
    def of(name: str) -> Exporter:
        return case().mistaken(**{**MISTAKES, **ARBITRARY}[name]) if name else case().exporter

    return of


def verified(exporter, case, target, folder, options=IMAGE):
    path = bare(exporter.write(target, options, folder / "made"), folder / "bare")
    return verify(path, recipe=case().recipe_path)


@pytest.mark.parametrize(("target", "name"), CELLS)
def test_the_mistake_is_named(exporter, case, tmp_path, target, name):
    one = verified(exporter(name), case, target, tmp_path)
    assert one.probe.verdict is ProbeVerdict.EXPLAINED, one.probe
    assert [each.name for each in one.probe.explanations] == [name]
    assert not one.passed
    assert f"preprocessing: the file behaves as if {name}" in one.findings


def without_numbers(text: str) -> str:
    return re.sub(r"[0-9.]+", "#", text)


def numbers(text: str) -> list[float]:
    return [float(one) for one in re.findall(r"[0-9]+\.?[0-9]*", text)]


@pytest.mark.parametrize("target", [pytest.param(one, marks=() if one is Target.ONNX else FULL) for one in Target])
@pytest.mark.parametrize(
    # The last holds what the others do.
    "name",
    [pytest.param(one, marks=() if index == 3 else FULL, id=str(index)) for index, one in enumerate(ARBITRARY)],
)
def test_a_mean_and_a_scale_that_nobody_has_a_name_for_are_measured(exporter, case, tmp_path, target, name):
    one = verified(exporter(name), case, target, tmp_path)
    assert one.probe.verdict is ProbeVerdict.EXPLAINED, one.probe
    (found,) = one.probe.explanations
    assert without_numbers(found.name) == without_numbers(name)
    assert numbers(found.name) == pytest.approx(numbers(name), rel=1e-3)
    assert found.relative_l2 <= one.probe.limit
    assert not one.passed


@pytest.mark.parametrize("target", [Target.ONNX, pytest.param(Target.TFLITE, marks=FULL)])
def test_a_wrong_weight_is_no_wrong_mean(exporter, case, tmp_path, target):
    path = bare(exporter("").write(target, IMAGE, tmp_path / "made"), tmp_path / "bare")
    weight = weight_of(case(), "last")
    changed = weight.copy()
    changed[1, 5] += 0.3
    replace_weight(path, weight, changed)
    one = verify(path, recipe=case().recipe_path)
    assert one.probe.verdict is ProbeVerdict.UNEXPLAINED, one.probe
    assert "nor any mean and scale" in one.probe.detail
    assert not one.passed


@pytest.mark.parametrize("target", [pytest.param(one, marks=() if one is Target.ONNX else FULL) for one in Target])
def test_a_right_file_agrees(exporter, case, tmp_path, target):
    one = verified(exporter(""), case, target, tmp_path)
    assert one.passed, one.findings
    assert one.probe.verdict is ProbeVerdict.AGREES
    assert one.probe.relative_l2 < one.probe.limit


@FULL
@pytest.mark.parametrize("target", [Target.ONNX, Target.COREAI])
def test_the_mistake_is_named_in_half_precision(exporter, case, tmp_path, target):
    name = SWAPPED
    options = ExportOptions(precision=Precision.FP16, input_kind=InputKind.IMAGE)
    one = verified(exporter(name), case, target, tmp_path, options)
    assert one.precision is Precision.FP16
    assert [each.name for each in one.probe.explanations] == [name]


def test_a_float_input_has_nothing_to_probe(exporter, case, tmp_path):
    one = verified(exporter(""), case, Target.ONNX, tmp_path, ExportOptions())
    assert one.passed
    assert one.probe.verdict is ProbeVerdict.SKIPPED
    assert "photo (float32)" in one.probe.detail

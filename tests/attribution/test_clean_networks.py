"""The negative twin of every planted fault: sound files of all networks, in all formats, accuse no layer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fault_cases import Case, assert_clean, attributed, prepare, write

from deploykit.lowering import ExportOptions
from deploykit.recipe import Recipe
from deploykit.targets.table import TARGETS
from deploykit.verify.samples import Sample, picture_sample
from deploykit.vocab import FLOAT_PRECISIONS, InputKind, Precision, Target

FULL = pytest.mark.full
NETWORKS = ("sinet", "rcrnet", "portraitnet", "elb", "mobilenetv3-sappm", "rcrnet-video")


@FULL
@pytest.mark.parametrize("precision", FLOAT_PRECISIONS)
@pytest.mark.parametrize("target", Target)
@pytest.mark.parametrize("network", NETWORKS)
def test_a_sound_file_accuses_no_layer(network: str, target: Target, precision: Precision, tmp_path: Path) -> None:
    if TARGETS[target].missing():
        pytest.skip(f"not installed: {TARGETS[target].missing()}")
    case = prepare(network)
    path, plan = write(case, target, tmp_path, ExportOptions(precision=precision))
    assert_clean(attributed(case, path, plan))


def flat(recipe: Recipe) -> Sample:
    """Return a picture of one colour: nothing but borders tells its places apart."""
    return picture_sample(recipe, np.full((64, 48, 3), (255, 0, 255), np.uint8))


@pytest.mark.parametrize("target", [pytest.param(one, marks=() if one is Target.ONNX else FULL) for one in Target])
@pytest.mark.parametrize("network", ["faulty", pytest.param("sinet", marks=FULL), pytest.param("rcrnet", marks=FULL)])
def test_a_flat_picture_accuses_no_layer(network: str, target: Target, case: Case, tmp_path: Path) -> None:
    if TARGETS[target].missing():
        pytest.skip(f"not installed: {TARGETS[target].missing()}")
    chosen = case if network == "faulty" else prepare(network)
    path, plan = write(chosen, target, tmp_path)
    assert_clean(attributed(replace(chosen, samples=(flat(chosen.network.recipe),)), path, plan))
    assert_clean(attributed(replace(chosen, samples=(*chosen.samples, flat(chosen.network.recipe))), path, plan))


@FULL
@pytest.mark.parametrize("target", [Target.ONNX, Target.COREML, Target.TFLITE])
def test_a_sound_file_that_takes_pixels_accuses_no_layer(target: Target, tmp_path: Path) -> None:
    case = prepare("sinet")
    path, plan = write(case, target, tmp_path, ExportOptions(input_kind=InputKind.IMAGE))
    assert_clean(attributed(case, path, plan))

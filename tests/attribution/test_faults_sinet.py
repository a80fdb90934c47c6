"""Faults planted in files of the bundled SINet: two hundred values, many alike, and every one is told apart."""

from __future__ import annotations

from pathlib import Path

import pytest
import test_faults_coreml as coreml
import test_faults_onnx as onnx
from fault_cases import assert_clean, assert_named, attributed, copied, lowered, prepare, write

from deploykit.records import ExportPlan
from deploykit.vocab import Target

# Module, what is changed and how: depthwise, pointwise, dense, a vector's, late and early, and one of equal blocks.
FAULTS = (
    ("encoder.level1.conv", "one weight", "weight"),
    ("encoder.level2_0.conv.0", "scaled", "weight"),
    ("encoder.level2_0.conv.1.dense.0", "one weight", "weight"),
    ("encoder.level2.0.d1.conv.0", "channels swapped", "weight"),
    ("encoder.level3.0.d2.act_conv1x1.1", "one weight", "weight"),
    ("encoder.level3.4.c1.conv", "inputs swapped", "weight"),
    ("encoder.level3.7.d1.conv.0", "shifted", "bias"),
    ("encoder.BR3.bn", "scaled", "weight"),
)


@pytest.fixture(scope="module", params=[Target.ONNX, Target.COREML])
def sound(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ExportPlan]:
    return write(prepare("sinet"), request.param, tmp_path_factory.mktemp("sinet"))


@pytest.mark.full
@pytest.mark.parametrize(("module", "change", "leaf"), FAULTS)
def test_the_module_is_named(
    module: str, change: str, leaf: str, sound: tuple[Path, ExportPlan], tmp_path: Path
) -> None:
    case, (path, plan) = prepare("sinet"), sound
    written = lowered(case, plan)
    if plan.target is Target.ONNX:
        faulty = onnx.planted(path, tmp_path, written, onnx.weights_of(module, change, leaf))
    else:
        faulty = coreml.edited(copied(path, tmp_path), written, coreml.weights_of(module, change, leaf))
    assert_named(attributed(case, faulty, plan), module)


@pytest.mark.full
def test_a_sound_file_accuses_no_layer(sound: tuple[Path, ExportPlan]) -> None:
    assert_clean(attributed(prepare("sinet"), *sound))

"""The negative twin of every planted fault: sound files of all networks, in all formats, accuse no layer."""

from __future__ import annotations

from pathlib import Path

import pytest
from fault_cases import assert_clean, attributed, prepare, write

from deploykit.lowering import ExportOptions
from deploykit.targets.table import TARGETS
from deploykit.vocab import InputKind, Precision, Target

NETWORKS = ("sinet", "rcrnet", "portraitnet", "elb", "mobilenetv3-sappm", "rcrnet-video")


@pytest.mark.full
@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize("target", Target)
@pytest.mark.parametrize("network", NETWORKS)
def test_a_sound_file_accuses_no_layer(network: str, target: Target, precision: Precision, tmp_path: Path) -> None:
    if TARGETS[target].missing():
        pytest.skip(f"not installed: {TARGETS[target].missing()}")
    case = prepare(network)
    path, plan = write(case, target, tmp_path, ExportOptions(precision=precision))
    assert_clean(attributed(case, path, plan))


@pytest.mark.full
@pytest.mark.parametrize("target", [Target.ONNX, Target.COREML, Target.TFLITE])
def test_a_sound_file_that_takes_pixels_accuses_no_layer(target: Target, tmp_path: Path) -> None:
    case = prepare("sinet")
    path, plan = write(case, target, tmp_path, ExportOptions(input_kind=InputKind.IMAGE))
    assert_clean(attributed(case, path, plan))

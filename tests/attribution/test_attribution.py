"""What the record says beside the module: the cause, the parts, what was not looked at; and how it is printed."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from fault_cases import Case, attributed
from rich.console import Console
from test_faults_onnx import FAULTS, planted

from deploykit.attribution import Part
from deploykit.cli.attribution_table import of_attribution
from deploykit.errors import ArtifactError
from deploykit.records import ExportPlan, versioned
from deploykit.targets.base import Array
from deploykit.targets.onnx import traced
from deploykit.targets.traced import Arithmetic, Trace


def test_a_wrong_kernel_is_told_from_a_wrong_file(
    case: Case, onnx_file: tuple[Path, ExportPlan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runtime here is a fake for one with a wrong kernel: it runs another file than the reference executor."""
    wrong = planted(onnx_file[0], tmp_path, case, FAULTS["average counts padding"][1])
    trace = traced.trace

    def runs(path: Path, inputs: Mapping[str, Array], arithmetic: Arithmetic) -> Trace:
        return trace(wrong if arithmetic is Arithmetic.RUNTIME else path, inputs, arithmetic)

    monkeypatch.setattr(traced, "trace", runs)
    found = attributed(case, *onnx_file)
    (row,) = found.accused
    assert (row.module, row.cause) == ("average", Part.KERNEL)
    assert "the file is right" in found.sentence
    assert row.kernel_error is not None
    assert row.converter_error is not None
    assert row.kernel_error > 0.01 > row.converter_error


def test_a_table_shows_the_worst_and_json_all(case: Case, onnx_file: tuple[Path, ExportPlan], tmp_path: Path) -> None:
    found = attributed(case, planted(onnx_file[0], tmp_path, case, FAULTS["gate weight"][1]), onnx_file[1])
    printed = io.StringIO()
    console = Console(width=100, file=printed)
    for part in of_attribution(found, layers=3):
        console.print(part)
    text = printed.getvalue()
    print(text)
    assert "gate.expand" in text
    assert "accused" in text
    assert f"{len(found.rows) - 3} more modules" in text
    assert "n/a" not in text
    body = json.loads(json.dumps(versioned("attribution", found)))["body"]
    assert body["rows"][0]["module"] == "gate.expand"
    assert len(body["rows"]) == len(found.rows) > 10
    assert body["rows"][0]["cause"] == "converter"


def test_inputs_of_another_network_are_refused(case: Case, onnx_file: tuple[Path, ExportPlan]) -> None:
    with pytest.raises(ArtifactError, match="takes other inputs"):
        attributed(case, *onnx_file, inputs={"photo": "another"})

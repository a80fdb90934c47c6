"""One network for every test of this folder, and its sound ONNX file; faults are planted in copies."""

from __future__ import annotations

from pathlib import Path

import pytest
from fault_cases import Case, prepare, write, write_recipe

from deploykit.records import ExportPlan
from deploykit.vocab import Target


@pytest.fixture(scope="session")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return prepare(write_recipe(tmp_path_factory.mktemp("faulty")))


@pytest.fixture(scope="session")
def onnx_file(case: Case, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ExportPlan]:
    return write(case, Target.ONNX, tmp_path_factory.mktemp("single"))

"""The host driver on real small files, each through its own runtime."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from bench_cases import write_onnx
from onnx import TensorProto

from deploykit.errors import ArtifactError, TargetError
from deploykit.latency.drivers.host import EAGER, build_inputs, measure_on_host
from deploykit.latency.subjects import find_subjects
from deploykit.network import load_network
from deploykit.recipe import load_recipe
from deploykit.records import TensorRecord
from deploykit.targets.table import TARGETS
from deploykit.vocab import Layout, Target

OFF_MACOS = pytest.mark.skipif(sys.platform == "darwin", reason="Core ML runs here")


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64, TensorProto.UINT8])
def test_a_bare_file_of_any_type_is_measured(tmp_path: Path, kind: int) -> None:
    subjects = find_subjects([write_onnx(tmp_path / "m.onnx", kind, "Identity")])
    result = measure_on_host(subjects, min_runs=3, min_seconds=0.0)
    (found,) = result.measured
    assert len(found.samples_s) >= 3
    assert all(sample > 0 for sample in found.samples_s)
    assert (found.target, found.precision, found.driver, found.accelerator) == (Target.ONNX, None, "host", "cpu")
    assert found.runtime.startswith("ONNX Runtime")
    assert str(tmp_path) not in repr(found)


def test_eager_comes_first_and_the_number_of_threads_is_restored(tmp_path: Path, tiny_recipe: Path) -> None:
    network = load_network(load_recipe(tiny_recipe))
    before = torch.get_num_threads()
    seen: list[int] = []
    network.module.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
    subjects = find_subjects([write_onnx(tmp_path / "m.onnx")])
    result = measure_on_host(subjects, network=network, threads=before + 1, min_runs=3, min_seconds=0.0)
    assert [one.artifact for one in result.measured] == [EAGER, "m.onnx"]
    assert set(seen) == {before + 1}
    assert torch.get_num_threads() == before


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ArtifactError, match="cannot load"):
        measure_on_host(find_subjects([path]))


def test_a_damaged_tflite_file_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    (tmp_path / "m.tflite").write_bytes(b"TFL3" * 20)
    with pytest.raises(ArtifactError, match="cannot load"):
        measure_on_host(find_subjects([tmp_path / "m.tflite"]))


@OFF_MACOS
def test_core_ml_is_skipped_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "m.mlpackage").mkdir()
    subjects = find_subjects([write_onnx(tmp_path / "m.onnx"), tmp_path / "m.mlpackage"])
    result = measure_on_host(subjects, min_runs=3, min_seconds=0.0)
    assert [one.artifact for one in result.measured] == ["m.onnx"]
    (skip,) = result.skipped
    assert skip.artifact == "m.mlpackage"
    assert "needs macOS" in skip.reason


@OFF_MACOS
def test_nothing_but_core_ml_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "m.mlpackage").mkdir()
    with pytest.raises(TargetError, match="needs macOS"):
        measure_on_host(find_subjects([tmp_path / "m.mlpackage"]))


def test_no_subject_is_an_error() -> None:
    with pytest.raises(TargetError, match="no artifact"):
        measure_on_host(())


def test_inputs_come_from_the_recipe_where_it_describes_them(tiny_recipe: Path) -> None:
    recipe = load_recipe(tiny_recipe)
    tensor = TensorRecord("image", (1, 3, 32, 32), "float32", Layout.NCHW)
    pixels = TensorRecord("image", (1, 32, 32, 3), "uint8", Layout.NHWC)
    given = build_inputs([tensor], recipe)["image"]
    assert np.array_equal(given, build_inputs([tensor], recipe)["image"])
    shown = build_inputs([pixels], recipe)["image"].transpose(0, 3, 1, 2)
    assert given == pytest.approx(shown * np.float32(0.004), rel=1e-5)


def test_inputs_are_uniform_where_the_recipe_describes_another(tiny_recipe: Path) -> None:
    recipe = load_recipe(tiny_recipe)
    for record in (
        TensorRecord("image", (1, 3, 16, 16), "float32", Layout.NCHW),
        TensorRecord("other", (1, 3, 32, 32), "float32", Layout.NCHW),
    ):
        given = build_inputs([record], recipe)[record.name]
        assert given.shape == record.shape
        assert np.array_equal(given, build_inputs([record], None)[record.name])
        assert given.min() >= 0
        assert given.max() < 1


@pytest.mark.parametrize(
    ("dtype", "low", "high"), [("uint8", 0, 255), ("int8", 0, 127), ("int64", 0, 1), ("bool", False, True)]
)
def test_uniform_integers_fill_their_safe_range(dtype: str, low: int, high: int) -> None:
    given = build_inputs([TensorRecord("x", (100, 100), dtype, Layout.NCHW)], None)["x"]
    assert given.dtype == np.dtype(dtype)
    assert (given.min(), given.max()) == (low, high)


@pytest.mark.parametrize("suffix", sorted(row.suffix for row in TARGETS.values()))
def test_a_file_of_every_format_is_a_subject_though_some_are_folders(suffix, tmp_path):
    path = tmp_path / f"m{suffix}"
    if suffix in {".mlpackage", ".aimodel"}:
        path.mkdir()
        (path / "part").write_bytes(b"1")
    else:
        path.write_bytes(b"1")
    (found,) = find_subjects([path])
    assert found.path == path

"""The host driver on real small files, each through its own runtime."""

from __future__ import annotations

import re
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from bench_cases import write_onnx, write_reshape
from onnx import TensorProto

from deploykit.errors import ArtifactError, TargetError
from deploykit.latency.agent.cores import usable
from deploykit.latency.drivers.host import COMPILED, EAGER, measure_on_host, no_compiler
from deploykit.latency.inputs import build_inputs
from deploykit.latency.measure import Protocol
from deploykit.latency.subjects import find_subjects
from deploykit.network import load_network
from deploykit.recipe import load_recipe
from deploykit.records import TensorRecord
from deploykit.targets.table import TARGETS
from deploykit.vocab import Layout, Target

OFF_MACOS = pytest.mark.skipif(sys.platform == "darwin", reason="Core ML runs here")


QUICK = Protocol(
    min_runs=3,
    min_seconds=0.0,
    precision_target=None,
    warmup_seconds=0.0,
    max_warmup_seconds=0.05,
    startup=False,
    startup_runs=1,
    affinity=None,
)


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64, TensorProto.UINT8])
def test_a_bare_file_of_any_type_is_measured(tmp_path: Path, kind: int) -> None:
    subjects = find_subjects([write_onnx(tmp_path / "m.onnx", kind, "Identity")])
    result = measure_on_host(subjects, protocol=QUICK)
    (found,) = result.measured
    assert len(found.samples_s) >= 3
    assert all(sample > 0 for sample in found.samples_s)
    assert (found.target, found.precision, found.driver, found.accelerator) == (Target.ONNX, None, "host", "cpu")
    assert found.runtime.startswith("ONNX Runtime")
    assert result.complete
    assert result.machine is not None
    assert str(tmp_path) not in repr(result)


def test_eager_comes_first_with_the_time_of_its_modules_and_compiling_needs_a_compiler(
    tmp_path: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    network = load_network(load_recipe(tiny_recipe))
    before = torch.get_num_threads()
    subjects = find_subjects([write_onnx(tmp_path / "m.onnx")])
    result = measure_on_host(
        subjects, network=network, compiled=True, threads=before + 1, protocol=replace(QUICK, profile=True)
    )
    assert [(one.artifact, "no no-such-compiler" in one.reason) for one in result.skipped] == [(COMPILED, True)]
    assert [(one.artifact, one.threads) for one in result.measured] == [(EAGER, before + 1), ("m.onnx", before + 1)]
    assert torch.get_num_threads() == before
    eager = result.measured[0]
    assert eager.runtime == f"PyTorch {torch.__version__}, eager"
    assert eager.network == "tiny"
    assert {one.modules for one in eager.operations} == {("0",), ("1",), ("2",), ("(network)",)}
    assert {one.operation for one in eager.operations} == {"Conv2d", "ReLU", "Sequential"}
    # In seconds, as the samples are; where the machine is busy, one run in between may take a hundred times as long.
    assert 0.1 * min(eager.samples_s) < sum(one.seconds for one in eager.operations) < 1000 * eager.median_s


def test_each_number_of_threads_is_measured_in_a_process_of_its_own_on_one_clock(tmp_path: Path) -> None:
    subjects = find_subjects([write_onnx(tmp_path / "a.onnx"), write_onnx(tmp_path / "b.onnx")])
    result = measure_on_host(subjects, threads=(1, 2), protocol=replace(QUICK, startup=True, affinity="auto"))
    assert [(one.artifact, one.threads) for one in result.measured] == [
        ("a.onnx", 1),
        ("a.onnx", 2),
        ("b.onnx", 1),
        ("b.onnx", 2),
    ]
    one, two = result.measured[:2]
    assert len(one.affinity) == (1 if usable() else 0)
    assert len(two.affinity) == min(2, len(usable()))
    assert two.starts_s[0] > one.starts_s[-1]
    assert two.starts_s[-1] < result.conditions[-1].time_s
    for warned in result.warnings:
        # Steal is counted on the cores that are pinned to, which are others for another number of threads.
        share = re.search(r"took (\d+)% of the time", warned.problem)
        assert share is None or int(share[1]) <= 100
    assert len({warned.remedy for warned in result.warnings}) == len(result.warnings)
    for found in result.measured:
        assert found.startup is not None
        assert found.startup.process_s is not None
        assert found.startup.peak_memory_bytes is not None


@pytest.mark.full
@pytest.mark.skipif(bool(no_compiler()), reason="torch.compile needs a C++ compiler")
def test_torch_compile_is_measured_beside_eager_and_leaves_nothing(
    tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setattr(tempfile, "tempdir", None)
    network = load_network(load_recipe(tiny_recipe))
    result = measure_on_host((), network=network, compiled=True, protocol=replace(QUICK, startup=True, profile=True))
    assert [one.artifact for one in result.measured] == [EAGER, COMPILED], result.skipped
    compiled = result.measured[1]
    assert "torch.compile" in compiled.runtime
    assert compiled.startup is not None
    assert compiled.startup.first_inference_s > 10 * compiled.median_s
    assert any("no profile" in note and "fuses" in note for note in compiled.notes)
    assert list(scratch.iterdir()) == []


def test_what_a_runtime_cannot_run_is_skipped_with_its_words_and_alone_an_error(tmp_path: Path) -> None:
    # Both load; the first divides shapes that do not fit when it is run.
    bad, good = write_reshape(tmp_path / "bad.onnx"), write_onnx(tmp_path / "good.onnx")
    result = measure_on_host(find_subjects([bad, good]), protocol=QUICK)
    assert [one.artifact for one in result.measured] == ["good.onnx"]
    (skip,) = result.skipped
    assert skip.artifact == "bad.onnx"
    assert "Reshape" in skip.reason
    with pytest.raises(ArtifactError, match="nothing can be measured") as caught:
        measure_on_host(find_subjects([bad]), protocol=QUICK)
    assert "Reshape" in str(caught.value.found)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ArtifactError, match="cannot load") as refused:
        measure_on_host(find_subjects([path]))
    assert "cut short" in str(refused.value.next_step)


def test_a_damaged_tflite_file_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    (tmp_path / "m.tflite").write_bytes(b"TFL3" * 20)
    with pytest.raises(ArtifactError, match="cannot load"):
        measure_on_host(find_subjects([tmp_path / "m.tflite"]))


@OFF_MACOS
def test_core_ml_is_skipped_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "m.mlpackage").mkdir()
    subjects = find_subjects([write_onnx(tmp_path / "m.onnx"), tmp_path / "m.mlpackage"])
    result = measure_on_host(subjects, protocol=QUICK)
    assert [one.artifact for one in result.measured] == ["m.onnx"]
    (skip,) = result.skipped
    assert skip.artifact == "m.mlpackage"
    assert "needs macOS" in skip.reason
    assert skip.elsewhere


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
    given = build_inputs([tensor], recipe)[0]["image"]
    assert np.array_equal(given, build_inputs([tensor], recipe)[0]["image"])
    shown = build_inputs([pixels], recipe)[0]["image"].transpose(0, 3, 1, 2)
    assert given == pytest.approx(shown * np.float32(0.004), rel=1e-5)


def test_inputs_are_uniform_where_the_recipe_describes_another(tiny_recipe: Path) -> None:
    recipe = load_recipe(tiny_recipe)
    for record in (
        TensorRecord("image", (1, 3, 16, 16), "float32", Layout.NCHW),
        TensorRecord("other", (1, 3, 32, 32), "float32", Layout.NCHW),
    ):
        given = build_inputs([record], recipe)[0][record.name]
        assert given.shape == record.shape
        assert np.array_equal(given, build_inputs([record], None)[0][record.name])
        assert given.min() >= 0
        assert given.max() < 1


@pytest.mark.parametrize(
    ("dtype", "low", "high"), [("uint8", 0, 255), ("int8", 0, 127), ("int64", 0, 1), ("bool", False, True)]
)
def test_uniform_integers_fill_their_safe_range(dtype: str, low: int, high: int) -> None:
    given = build_inputs([TensorRecord("x", (100, 100), dtype, Layout.NCHW)], None)[0]["x"]
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

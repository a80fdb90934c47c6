"""What the agent times is what the runtime computes: sessions opened as in the agent, in this process."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_cases import write_onnx
from tflite_case import write_tflite

from deploykit.latency.agent import runtimes
from deploykit.latency.agent.runtimes import installed, prepared
from deploykit.latency.inputs import save_inputs
from deploykit.targets.table import part
from deploykit.vocab import Target


def _subject(path: Path, target: str, feeds: list[dict[str, np.ndarray]], **changed: Any) -> dict[str, Any]:
    inputs = save_inputs(feeds, path.parent, path.stem)
    subject = {"name": path.name, "path": str(path), "target": target, "threads": 1, "accelerator": "cpu"}
    return {**subject, "inputs": inputs, "options": {}, "opener": None, **changed}


def _feeds(shapes: dict[str, tuple[int, ...]]) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(1)
    return [{name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()} for _ in range(2)]


@pytest.mark.parametrize(
    ("target", "write", "shapes"),
    [
        (Target.ONNX, write_onnx, {"x": (1, 3, 8, 8)}),
        (Target.TFLITE, write_tflite, {"a": (1, 1), "z": (1, 4)}),
    ],
)
def test_each_run_computes_what_the_runtime_gives_for_the_next_inputs(
    tmp_path: Path, target: Target, write: Any, shapes: dict[str, tuple[int, ...]]
) -> None:
    path = write(tmp_path / f"m.{target}")
    feeds = _feeds(shapes)
    session = prepared(_subject(path, target, feeds))()
    with part(target, "runtime").open_artifact(path) as runtime:
        expected = [list(runtime.run(feed).values()) for feed in feeds]
        assert session.runtime == runtime.name
    found = [session.run() for _ in range(3)]
    for given, values in zip([expected[0], expected[1], expected[0]], found, strict=True):
        assert all(np.array_equal(one, other) for one, other in zip(given, values, strict=True))
    assert not np.array_equal(found[0][0], found[1][0])
    session.close()
    with pytest.raises(RuntimeError, match="closed"):
        session.run()


@pytest.mark.parametrize(
    ("changed", "said"),
    [({"target": "coreai"}, "not measured by the agent"), ({"accelerator": "gpu"}, "on the cpu, not on gpu")],
)
def test_what_the_agent_cannot_measure_is_refused(tmp_path: Path, changed: dict[str, str], said: str) -> None:
    subject = _subject(write_onnx(tmp_path / "m.onnx"), "onnx", _feeds({"x": (1, 3, 8, 8)})) | changed
    with pytest.raises(ValueError, match=said):
        prepared(subject)


def test_the_options_of_a_session_reach_it(tmp_path: Path) -> None:
    subject = _subject(
        write_onnx(tmp_path / "m.onnx"), "onnx", [], threads=3, options={"session.disable_quant_qdq": "1"}
    )
    options = runtimes.onnx_options(subject)
    assert options.intra_op_num_threads == 3
    assert options.get_session_config_entry("session.disable_quant_qdq") == "1"


def test_installed_runtimes_are_named_with_their_versions() -> None:
    found = installed()
    assert set(found) <= {"onnxruntime", "ai_edge_litert", "coremltools"}
    assert all(version[0].isdigit() for version in found.values())


@pytest.mark.full
def test_core_ml_is_asked_for_as_coremltools_wants_it() -> None:
    # Core ML itself runs on a Mac alone: here its library tells what it takes.
    coremltools = pytest.importorskip("coremltools")
    units = {one.name for one in coremltools.ComputeUnit}
    assert set(runtimes._COMPUTE_UNITS.values()) <= units
    assert "compute_units" in inspect.signature(coremltools.models.MLModel.__init__).parameters
    assert list(inspect.signature(coremltools.models.MLModel.predict).parameters)[1] == "data"
    picture = runtimes._picture(np.zeros((1, 4, 6, 3), np.uint8))
    grey = runtimes._picture(np.zeros((1, 4, 6, 1), np.float16))
    assert (picture.size, picture.mode, grey.mode) == ((6, 4), "RGB", "F")

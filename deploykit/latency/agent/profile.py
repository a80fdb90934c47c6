"""Time by operation, where a runtime tells it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .runtimes import Subject, onnx_options, prepared

_WARM_RUNS = 5
_KERNEL = "_kernel_time"
_MICROSECONDS = 1e6


def profile(subject: Subject, runs: int) -> list[dict[str, Any]]:
    """Return what each operation of ``subject`` takes in one inference, the mean over ``runs``, in order of execution.

    Raises ValueError where the runtime does not tell it.
    """
    if subject.get("opener"):
        session = prepared(subject)()
        try:
            if not hasattr(session, "profile"):
                raise ValueError(f"{session.runtime} does not tell the time of its operations")
            rows: list[dict[str, Any]] = session.profile(runs)
            return rows
        finally:
            session.close()
    if subject["target"] == "onnx":
        return _profile_onnx(subject, runs)
    raise ValueError(_REASONS.get(subject["target"], "its runtime does not tell the time of its operations"))


_REASONS = {
    "coreml": "coremltools tells the estimated cost of an operation, not its time",
    "tflite": "LiteRT's Python interface has no profiler; the one of its benchmark_model names kernels, not tensors",
}


def _profile_onnx(subject: Subject, runs: int) -> list[dict[str, Any]]:
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        options = onnx_options(subject)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        optimized = Path(folder) / "optimized.onnx"
        options.optimized_model_filepath = str(optimized)
        session = onnxruntime.InferenceSession(subject["path"], options, providers=["CPUExecutionProvider"])
        feed = {name: np.load(path) for name, path in subject["inputs"][0].items()}
        for _ in range(_WARM_RUNS + runs):
            session.run(None, feed)
        events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
        wiring = _wiring_of(optimized)
    return kernel_rows(events, wiring, runs)


def kernel_rows(
    events: list[Mapping[str, Any]], wiring: Mapping[str, tuple[list[str], list[str]]], runs: int
) -> list[dict[str, Any]]:
    """Return one row for each node in a profile of ONNX Runtime, from its last ``runs`` runs.

    ``wiring`` is node → tensors that it makes, tensors that it takes.
    """
    found: dict[str, list[float]] = {}
    kinds: dict[str, str] = {}
    for event in sorted((one for one in events if one.get("cat") == "Node"), key=lambda one: one["ts"]):
        if event["name"].endswith(_KERNEL):
            name = event["name"][: -len(_KERNEL)]
            found.setdefault(name, []).append(event["dur"] / _MICROSECONDS)
            kinds[name] = event["args"]["op_name"]
    rows = []
    for name, times in found.items():
        makes, takes = wiring.get(name, ([], []))
        seconds = sum(times[-runs:]) / len(times[-runs:])
        row = {"name": name, "operation": kinds[name], "seconds": seconds, "values": makes, "reads": takes}
        rows.append({**row, "modules": []})
    return rows


def _wiring_of(path: Path) -> dict[str, tuple[list[str], list[str]]]:
    """Return node → tensors that it makes and takes in what the runtime made of the model; empty without onnx."""
    try:
        import onnx
    except ImportError:
        return {}
    graph = onnx.load(str(path), load_external_data=False).graph
    constants = {item.name for item in graph.initializer}
    return {
        node.name: (list(node.output), [name for name in node.input if name and name not in constants])
        for node in graph.node
    }

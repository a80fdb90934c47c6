"""A folder as a pipeline leaves it: one small network's ONNX file, with a record of every kind beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from provenance.chain_cases import write_chain

from deploykit import api
from deploykit.artifact import find_artifacts
from deploykit.benchmark import bench
from deploykit.evaluation.evaluate import Options
from deploykit.gate_measuring.run import GateOptions, run_gate
from deploykit.records import to_json, versioned

PROJECT = """
recipe = "chain.toml"

[[budgets]]
measure = "bytes"
limit = 1000000
reason = "a small network stays small"
"""


def write_record(path: Path, kind: str, body: Any) -> None:
    """Write ``body`` as a versioned record."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(versioned(kind, body)), "utf-8")


def write_folder(place: Path) -> Path:
    """Write network, checkpoint, recipe, artifact and records; return the folder of the artifact."""
    recipe = write_chain(place)
    folder = place / "artifacts"
    (artifact,) = api.export(recipe, targets=["onnx"], output_dir=folder)
    records = folder / "chain" / "records"
    network = api.load(recipe)
    write_record(records / "verify-reparam.json", "verify-reparam", [api.verify_reparam(network)])
    verified = api.verify_artifact(artifact, recipe=recipe)
    write_record(records / "verify.json", "verify", {**to_json(verified), "passed": verified.passed})
    scores = api.evaluate(network, artifact, options=Options(samples=3, clips=0))
    write_record(records / "evaluate.json", "evaluate", scores)
    times = bench([artifact.path], runs=5, seconds=0.01, precision_target=None, startup=False)
    write_record(records / "bench.json", "bench", times)
    (place / "deploykit.toml").write_text(PROJECT, "utf-8")
    options = GateOptions(paths=(folder,), recipes=(str(recipe),), samples=2, clips=1, strict=True, folder=place)
    gate = run_gate(options)
    write_record(folder / "gate.json", "gate", gate)
    return folder


def read_body(path: Path) -> Any:
    """Return the body of the record at ``path``."""
    return json.loads(path.read_text("utf-8"))["body"]


def rewrite(path: Path, **changes: Any) -> None:
    """Change fields of the body of the record at ``path``."""
    record = json.loads(path.read_text("utf-8"))
    record["body"].update(changes)
    path.write_text(json.dumps(record), "utf-8")


def change_a_byte(folder: Path) -> Path:
    """Change the last byte of the one file below ``folder``; return it."""
    (artifact,) = find_artifacts(folder)
    content = bytearray(artifact.path.read_bytes())
    content[-1] ^= 1
    artifact.path.write_bytes(content)
    return artifact.path

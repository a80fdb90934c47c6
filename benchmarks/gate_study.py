"""How often ``gate`` is wrong: runs in a row under load that must not fail, and planted regressions that must.

A project with budgets is made in a folder, with the bundled SINet as ONNX and a ladder of equal blocks. In the runs in
a row the last bit of one weight of SINet differs from the baseline, as after another training: the same speed, but
files of the same content would not be measured at all. Another process keeps the other core busy at random. The
regressions: 3 % more bytes, a shuffle that is put back, an artifact with 15 % more blocks, a point of mIoU lost, a
changed align_corners, a changed byte of the weights.

Run: python benchmarks/gate_study.py [--runs 50] [--folder DIR]. An interrupted study goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import onnx
import psutil
import torch
from onnx import numpy_helper
from rich.console import Console
from rich.table import Table

from deploykit.artifact import find_artifacts, hash_files, hash_items, read_artifact, write_manifest
from deploykit.latency.machine import device_name
from deploykit.records import versioned
from deploykit.targets.onnx.export import content_items

RECORD = Path(__file__).parent / "results" / "gate_study.json"
LOAD = Path(__file__).with_name("competing_load.py")
BLOCKS = 20
BUDGETS = """
recipe = "sinet"

[[budgets]]
measure = "bytes"
max_growth = 0.02
reason = "the app's download may not creep up"

[[budgets]]
measure = "transposes"
max_growth = 0.0
reason = "each of them moves every value once more"

[[budgets]]
measure = "latency_s"
max_growth = 0.05
reason = "frames must keep up with the camera"

[[budgets]]
measure = "miou_points_lost"
limit = 0.5
reason = "half a point is what reviewers see"
"""
LADDER = """
format_version = 1
name = "ladder"
description = "Equal blocks"
license = "MIT"
source = "drawn by lot"

[network]
factory = "blocks:make"
arguments = {{ blocks = {blocks} }}

[[inputs]]
name = "x"
kind = "tensor"
shape = [1, 96, 20, 20]
source = "drawn by lot"

[[outputs]]
name = "y"
meaning = "features"

[checkpoint]
path = "ladder{blocks}.pt"
"""
MODULE = """
import torch
from torch import nn


def make(blocks: int) -> nn.Module:
    torch.manual_seed(blocks)
    layers = []
    for _ in range(blocks):
        layers += [nn.Conv2d(96, 96, 3, padding=1, groups=96), nn.Conv2d(96, 96, 1), nn.ReLU()]
    return nn.Sequential(*layers)
"""
COUNTED = ("--only", "bytes", "--only", "transposes", "--only", "hash", "--only", "equivalence")
MASKS = ("--only", "miou_points_lost", "--samples", "16", "--clips", "1")
LATENCY = ("--only", "latency_s", "--max-seconds", "10")


def deploykit(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    here = os.pathsep.join((str(Path(__file__).parent.parent), str(folder)))
    environment = {**os.environ, "PYTHONPATH": here, "CI": "", "GITHUB_ACTIONS": ""}
    command = [sys.executable, "-m", "deploykit", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def expect(folder: Path, *arguments: str) -> None:
    done = deploykit(folder, *arguments)
    if done.returncode:
        raise SystemExit(f"deploykit {' '.join(arguments)}: {done.returncode}\n{done.stderr}")


def gate(folder: Path, *arguments: str) -> dict[str, Any]:
    done = deploykit(folder, "gate", "--json", "--no-strict", *arguments)
    if done.returncode not in (0, 1):
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)["body"]


def make_project(folder: Path) -> None:
    (folder / "deploykit.toml").write_text(BUDGETS, "utf-8")
    (folder / "blocks.py").write_text(MODULE, "utf-8")
    namespace: dict[str, Any] = {}
    exec(MODULE, namespace)
    for blocks in (BLOCKS, BLOCKS * 115 // 100):
        torch.save(namespace["make"](blocks).state_dict(), folder / f"ladder{blocks}.pt")
        (folder / f"ladder{blocks}.toml").write_text(LADDER.format(blocks=blocks), "utf-8")
    expect(folder, "export", "sinet", "--target", "onnx")
    expect(folder, "export", f"ladder{BLOCKS}.toml", "--target", "onnx")
    expect(folder, "gate", "--update-baseline", "--yes")
    shutil.copytree(folder / "artifacts", folder / "kept")


def sinet(folder: Path) -> Path:
    (found,) = find_artifacts(folder / "artifacts" / "sinet")
    return found.path


def as_new_export(path: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    """Change the model at ``path``, and its manifest as if it had been exported like that."""
    model = onnx.load(path)
    change(model)
    path.write_bytes(model.SerializeToString(deterministic=True))
    artifact, files = read_artifact(path), hash_files(path)
    made = replace(artifact, files=files, size_bytes=files[0].size_bytes, content_hash=hash_items(content_items(path)))
    write_manifest(made, path.parent)


def weight(model: onnx.ModelProto, change: Callable[[np.ndarray], None], *, last: bool = False) -> None:
    """Change the largest convolution weight in place, or the last one of the graph."""
    named = {one.name: one for one in model.graph.initializer}
    used = [named[node.input[1]] for node in model.graph.node if node.op_type == "Conv" and node.input[1] in named]
    tensor = used[-1] if last else max(used, key=lambda one: int(np.prod(one.dims)))
    values = numpy_helper.to_array(tensor).copy()
    change(values)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def last_bit(model: onnx.ModelProto) -> None:
    def turn(values: np.ndarray) -> None:
        values.reshape(-1)[:1].view(np.uint32)[0] ^= 1

    weight(model, turn)


def more_bytes(model: onnx.ModelProto) -> None:
    size = len(model.SerializeToString())
    extra = np.random.default_rng(0).standard_normal(int(0.03 * size / 4) + 1).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(extra, "left_behind"))


def align_corners(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "coordinate_transformation_mode":
                attribute.s = b"asymmetric" if attribute.s == b"half_pixel" else b"half_pixel"


def moved_scores(by: float) -> Callable[[onnx.ModelProto], None]:
    """Add ``by`` to the score of the background, at the end."""

    def change(model: onnx.ModelProto) -> None:
        output = model.graph.output[0].name
        for node in model.graph.node:
            for index, name in enumerate(node.output):
                if name == output:
                    node.output[index] = "before"
        bias = np.array([by, 0], np.float32).reshape(1, 2, 1, 1)
        model.graph.initializer.append(numpy_helper.from_array(bias, "late"))
        model.graph.node.append(onnx.helper.make_node("Add", ["before", "late"], [output]))

    return change


def a_point_lost(folder: Path) -> None:
    """Move the scores until the masks have lost one to two points of mIoU."""
    low, high = 0.0, 64.0
    for _ in range(12):
        by = (low + high) / 2
        restore(folder)
        as_new_export(sinet(folder), moved_scores(by))
        lost = next(
            one["measured"]
            for one in gate(folder, *MASKS)["findings"]
            if "sinet" in one["subject"] and one["unit"] == "points"
        )
        if 1.0 <= lost <= 2.0:
            return
        low, high = (by, high) if lost < 1.0 else (low, by)
    raise SystemExit("no shift of the scores loses a point")


def restore(folder: Path) -> None:
    shutil.rmtree(folder / "artifacts")
    shutil.copytree(folder / "kept", folder / "artifacts")


def byte_of_a_weight(folder: Path) -> None:
    path = sinet(folder)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def shuffle_back(folder: Path) -> None:
    shutil.rmtree(folder / "artifacts" / "sinet")
    expect(folder, "export", "sinet", "--target", "onnx", "--skip-pass", "absorb_permutations")


def slower(folder: Path) -> None:
    shutil.rmtree(folder / "artifacts" / "ladder")
    expect(folder, "export", f"ladder{BLOCKS * 115 // 100}.toml", "--target", "onnx")


PLANTS: dict[str, tuple[Callable[[Path], None], tuple[str, ...], str]] = {
    "3 % more bytes": (lambda folder: as_new_export(sinet(folder), more_bytes), COUNTED, "bytes growth"),
    "a shuffle put back": (shuffle_back, COUNTED, "transposes growth"),
    "15 % more blocks": (slower, LATENCY, "latency growth"),
    "1 point of mIoU lost": (a_point_lost, MASKS, "miou_points_lost"),
    "a changed align_corners": (lambda folder: as_new_export(sinet(folder), align_corners), COUNTED, "equivalence"),
    "a changed byte of the weights": (byte_of_a_weight, COUNTED, "hash"),
}


def plant(folder: Path, name: str) -> dict[str, Any]:
    change, arguments, rule = PLANTS[name]
    restore(folder)
    change(folder)
    findings = [one for one in gate(folder, *arguments)["findings"] if one["verdict"] != "pass"]
    failed = sorted({one["rule"] for one in findings if one["fails"]})
    shown = next(
        (
            f"{one['measured']:.4g} {one['unit']}"
            for one in findings
            if one["rule"] == rule and one["measured"] is not None
        ),
        "",
    )
    return {"what": name, "rule": rule, "failed": failed, "caught": rule in failed, "measured": shown}


def one_run(folder: Path, index: int) -> dict[str, Any]:
    """Run the whole gate on files of another content and the same speed, under load."""
    core = psutil.Process().cpu_affinity()[0]
    load = subprocess.Popen([sys.executable, str(LOAD), str(core), str(index)])
    started = time.monotonic()
    try:
        findings = gate(folder, "--samples", "2", "--clips", "1", "--max-seconds", "10")["findings"]
    finally:
        load.kill()
        load.wait()
    latency = next(one for one in findings if one["rule"] == "latency growth" and "sinet" in one["subject"])
    return {
        "index": index,
        "failed": sorted({one["rule"] for one in findings if one["fails"]}),
        "inconclusive": sum(one["verdict"] == "inconclusive" for one in findings),
        "skipped": sum(one["verdict"] == "skipped" for one in findings),
        "latency": latency["verdict"],
        "ratio": latency["measured"],
        "seconds": round(time.monotonic() - started, 1),
        "load_average": os.getloadavg()[0],
    }


def table(body: dict[str, Any]) -> Table:
    runs = body["runs"]
    shown = Table("what", "found", "must reach", title="gate", title_justify="left")
    shown.add_row(
        "runs in a row under load that fail", f"{sum(bool(one['failed']) for one in runs)} of {len(runs)}", "0"
    )
    shown.add_row("inconclusive after a retry", str(sum(bool(one["inconclusive"]) for one in runs)), "at most 5 of 50")
    for one in body["plants"]:
        shown.add_row(one["what"], f"{', '.join(one['failed']) or 'nothing'} ({one['measured']})", one["rule"])
    return shown


def write(body: dict[str, Any], path: Path) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(versioned("gate-study", body), indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "deploykit-gate-study")
    parser.add_argument("--output", type=Path, default=RECORD)
    options, say = parser.parse_args(), Console(stderr=True, highlight=False)
    body: dict[str, Any] = {"device": device_name(), "plants": [], "runs": []}
    if options.output.is_file():
        body = json.loads(options.output.read_text("utf-8"))["body"]
    if not (options.folder / "kept").is_dir():
        shutil.rmtree(options.folder, ignore_errors=True)
        options.folder.mkdir(parents=True)
        make_project(options.folder)
    for name in PLANTS:
        if name not in {one["what"] for one in body["plants"]}:
            body["plants"].append(plant(options.folder, name))
            say.print(body["plants"][-1])
            write(body, options.output)
    restore(options.folder)
    as_new_export(sinet(options.folder), last_bit)
    for index in range(len(body["runs"]), options.runs):
        body["runs"].append(one_run(options.folder, index))
        say.print(body["runs"][-1])
        write(body, options.output)
    Console().print(table(body))
    wrong = any(one["failed"] for one in body["runs"]) or not all(one["caught"] for one in body["plants"])
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())

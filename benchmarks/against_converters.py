"""How much faster a deploykit file is than the converter's own, on the runtime that will execute it.

The rival is the converter used as its own documentation says: ``torch.onnx.export`` and onnxsim, or
``litert_torch.convert``, on the evaluated module with its deployed outputs. A rival that fails is listed with its
error; then the rival is the plain conversion (``--optimize off``), which holds only the rewrites without which it does
not convert. Files are timed as interleaved pairs in one process on one thread: the figure is the median of the paired
ratios with its 95 % interval. PyTorch eager runs in the same pairs. Beside them stands what a large matrix product and
a large copy reach on this machine in the same run.

Run: python benchmarks/against_converters.py [--network NAME ...] [--rounds N] [--checkpoint sinet=FILE]
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import Tensor, nn

import deploykit
from deploykit.chatter import contained
from deploykit.inspection.exported import inspect_file
from deploykit.latency.machine import device_name
from deploykit.lowering import ExportOptions
from deploykit.metrics.interval import bootstrap_interval
from deploykit.network import LoadedNetwork
from deploykit.pipeline import Exporter, prepare_export
from deploykit.records import versioned
from deploykit.targets.table import TARGETS
from deploykit.verify.samples import draw_samples
from deploykit.vocab import Target

FILE = Path(__file__).parent / "results" / "against_converters.json"
NETWORKS = ("sinet", "rcrnet", "portraitnet", "mobilenetv3-sappm", "elb")
RUNTIMES = (Target.ONNX, Target.TFLITE)
COUNTED = (Target.COREML, Target.COREAI)
EAGER = "pytorch eager"
WARM_UP = 5


class Deployed(nn.Module):
    """The network with its deployed outputs alone: a rival is not charged for training heads."""

    def __init__(self, network: LoadedNetwork) -> None:
        super().__init__()
        self.module = copy.deepcopy(network.module).eval()
        names = [output.name for output in network.recipe.file.outputs]
        self.places = [names.index(output.name) for output in network.recipe.deployed()]

    def forward(self, *inputs: Tensor) -> Any:
        found = self.module(*inputs)
        leaves = [found] if isinstance(found, Tensor) else list(torch.utils._pytree.tree_flatten(found)[0])
        kept = [leaves[place] for place in self.places]
        return kept[0] if len(kept) == 1 else tuple(kept)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def convert(target: Target, module: nn.Module, inputs: tuple[Tensor, ...], path: Path) -> None:
    """Write the converter's own file, as its documentation shows it."""
    if target is Target.ONNX:
        import onnx
        import onnxsim

        torch.onnx.export(module, inputs, str(path), dynamo=True, external_data=False, verbose=False)
        simplified, _ = onnxsim.simplify(onnx.load(str(path)))
        onnx.save(simplified, str(path))
    elif target is Target.TFLITE:
        os.environ.setdefault("LITERT_TORCH_SHOW_PROGRESS", "n")
        import litert_torch

        litert_torch.convert(module, inputs).export(str(path))
    elif target is Target.COREML:
        import coremltools

        exported = torch.export.export(module, inputs).run_decompositions({})
        # Float32 throughout, as the file that it is compared with.
        coremltools.convert(exported, compute_precision=coremltools.precision.FLOAT32).save(str(path))
    else:
        import coreai_torch

        exported = torch.export.export(module, inputs).run_decompositions(coreai_torch.get_decomp_table())
        coreai_torch.TorchConverter().add_exported_program(exported).to_coreai().save_asset(path)


@contextmanager
def onnx_session(path: Path, inputs: tuple[Tensor, ...]) -> Iterator[Callable[[], object]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feed = {one.name: value.numpy() for one, value in zip(session.get_inputs(), inputs, strict=True)}
    yield lambda: session.run(None, feed)


@contextmanager
def litert_session(path: Path, inputs: tuple[Tensor, ...]) -> Iterator[Callable[[], object]]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    details = interpreter.get_input_details()
    for value in inputs:
        place = next(one["index"] for one in details if tuple(one["shape"]) == tuple(value.shape))
        interpreter.set_tensor(place, value.numpy())
    yield interpreter.invoke


SESSIONS = {Target.ONNX: onnx_session, Target.TFLITE: litert_session}


def interleaved(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Return seconds of every call, taken in turns; every other round runs backwards."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        for _ in range(WARM_UP):
            call()
    for turn in range(rounds):
        for name in sorted(calls, reverse=bool(turn % 2)):
            begin = time.perf_counter()
            calls[name]()
            seconds[name].append(time.perf_counter() - begin)
    return seconds


def ratio(slow: list[float], fast: list[float]) -> dict[str, float]:
    """Return the median of the paired ratios, with its 95 % interval."""
    paired = [a / b for a, b in zip(slow, fast, strict=True)]
    low, high = bootstrap_interval([paired], np.median) or (math.nan, math.nan)
    return {"ratio": statistics.median(paired), "low": low, "high": high}


def limits() -> dict[str, float]:
    """Return multiply-accumulates per second of a large product and bytes per second of a large copy, one thread."""
    one = torch.randn(1024, 1024)
    large = torch.randn(32 * 1024 * 1024)
    target = torch.empty_like(large)
    products, copies = [], []
    for _ in range(15):
        begin = time.perf_counter()
        one @ one
        products.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        target.copy_(large)
        copies.append(time.perf_counter() - begin)
    # A copy reads and writes.
    return {
        "macs_per_s": 1024**3 / statistics.median(products),
        "bytes_per_s": 2 * large.numel() * 4 / statistics.median(copies),
    }


def contents(path: Path) -> dict[str, Any]:
    """Return what the file holds: operations, transposes, multiply-accumulates, and bytes that its values take."""
    found = inspect_file(path)
    return {
        "operations": sum(found.contents.operations.values()),
        "transposes": found.contents.transposes,
        "macs": found.macs,
        "bytes_moved": sum(4 * (one.inputs + one.outputs + one.kernel) for one in found.contents.work),
        "bytes": found.contents.size_bytes,
    }


def rival_file(target: Target, module: nn.Module, inputs: tuple[Tensor, ...], folder: Path) -> tuple[Path | None, str]:
    """Return the converter's own file, or why there is none."""
    path = folder / f"rival{TARGETS[target].suffix}"
    try:
        with contained():
            convert(target, module, inputs, path)
    except Exception as error:  # Converters raise whatever their libraries raise: it is the result.
        lines = [line for line in str(error).splitlines() if line.strip()]
        # Where the file lies on this machine is nobody's business.
        said = re.sub(r"(?:/[^/\s:]+)+/", "", lines[0]) if lines else ""
        return None, f"{type(error).__name__}: {said[:160]}"
    return path, ""


def plain_file(exporter: Exporter, target: Target, folder: Path) -> tuple[Path | None, str]:
    try:
        return exporter.write(target, ExportOptions(optimize=False), folder / "plain").path, ""
    except deploykit.DeploykitError as error:
        return None, str(error.found or error.message)


@dataclass(frozen=True)
class Subject:
    """One network: how deploykit exports it, and the module and inputs that its rivals are given."""

    exporter: Exporter
    module: nn.Module
    inputs: tuple[Tensor, ...]


def race(subject: Subject, target: Target, folder: Path, rounds: int) -> dict[str, Any]:
    """Return the verdict of one network on one runtime, raw samples included."""
    exporter, module, inputs = subject.exporter, subject.module, subject.inputs
    ours = exporter.write(target, ExportOptions(), folder / "ours")
    path, failure = rival_file(target, module, inputs, folder)
    rival = "converter"
    if path is None:
        path, _ = plain_file(exporter, target, folder)
        rival = "minimally patched: --optimize off"
    row: dict[str, Any] = {
        "runtime": target.value,
        "rival": rival if path else "none",
        "rival_failed": failure,
        "ours": contents(ours.path),
        "rival_contents": contents(path) if path else None,
        "max_abs_error": max(one.max_abs_error for one in ours.comparisons),
        "verified": ours.passed,
    }

    def eager() -> object:
        with torch.inference_mode():
            return module(*inputs)

    with ExitStack() as stack:
        calls: dict[str, Callable[[], object]] = {
            "ours": stack.enter_context(SESSIONS[target](ours.path, inputs)),
            EAGER: eager,
        }
        if path is not None:
            calls["rival"] = stack.enter_context(SESSIONS[target](path, inputs))
        seconds = interleaved(calls, rounds)
    row["median_s"] = {name: statistics.median(values) for name, values in seconds.items()}
    row["against_eager"] = ratio(seconds[EAGER], seconds["ours"])
    if path is not None:
        row["against_rival"] = ratio(seconds["rival"], seconds["ours"])
    row["macs_per_s"] = row["ours"]["macs"] / row["median_s"]["ours"]
    row["bytes_per_s"] = row["ours"]["bytes_moved"] / row["median_s"]["ours"]
    row["samples_s"] = {name: [round(value, 7) for value in values] for name, values in seconds.items()}
    return row


def look_at(name: str, checkpoint: str | None, rounds: int) -> dict[str, Any]:
    network = deploykit.load(name, checkpoint=checkpoint)
    samples = draw_samples(network.recipe)
    exporter = prepare_export(network, samples)
    picture = next(sample for sample in samples if sample.picture)
    inputs = tuple(torch.from_numpy(picture.tensors[item.name]) for item in network.recipe.file.inputs)
    module = Deployed(network).eval()
    with tempfile.TemporaryDirectory() as held:
        folder = Path(held)
        runs = []
        for target in RUNTIMES:
            say(f"{name}: {target}")
            runs.append(race(Subject(exporter, module, inputs), target, folder, rounds))
        counted = []
        for target in COUNTED:
            say(f"{name}: {target}, operations")
            ours = exporter.write(target, ExportOptions(), folder / "ours")
            path, failure = rival_file(target, module, inputs, folder)
            plain, refused = plain_file(exporter, target, folder)
            counted.append(
                {
                    "target": target.value,
                    "ours": contents(ours.path),
                    "plain": contents(plain) if plain else None,
                    "plain_failed": refused,
                    "converter": contents(path) if path else None,
                    "converter_failed": failure,
                }
            )
    return {
        "network": name,
        "checkpoint": "public" if checkpoint else "bundled",
        "size": list(network.recipe.file.inputs[0].shape[2:]),
        "runs": runs,
        "counted": counted,
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, float]:
    found = [run["against_rival"]["ratio"] for row in rows for run in row["runs"] if "against_rival" in run]
    return {"geometric_mean": statistics.geometric_mean(found), "pairs": len(found)} if found else {}


def main() -> None:
    """Measure, keep what other networks gave before, and print a line each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--network", action="append", choices=NETWORKS)
    parser.add_argument("--rounds", type=int, default=120)
    parser.add_argument("--checkpoint", action="append", default=[], metavar="NETWORK=FILE")
    given = parser.parse_args()
    torch.set_num_threads(1)
    checkpoints = dict(one.split("=", 1) for one in given.checkpoint)
    before = json.loads(FILE.read_text("utf-8"))["body"]["networks"] if FILE.is_file() else []
    rows = {row["network"]: row for row in before}
    for name in given.network or NETWORKS:
        rows[name] = look_at(name, checkpoints.get(name), given.rounds)
        ordered = [rows[one] for one in NETWORKS if one in rows]
        body = {
            "machine": device_name(),
            "threads": 1,
            "limits": limits(),
            "summary": summary(ordered),
            "networks": ordered,
        }
        temporary = FILE.with_suffix(".tmp")
        temporary.write_text(json.dumps(versioned("against-converters", body), indent=1) + "\n", "utf-8")
        temporary.replace(FILE)
        for run in rows[name]["runs"]:
            rival = run.get("against_rival", {"ratio": math.nan, "low": math.nan, "high": math.nan})
            print(
                f"{name:20s} {run['runtime']:7s} {run['median_s']['ours'] * 1e3:8.2f} ms  rival x{rival['ratio']:.2f} "
                f"[{rival['low']:.2f}, {rival['high']:.2f}]  eager x{run['against_eager']['ratio']:.2f}  {run['rival']}"
            )


if __name__ == "__main__":
    main()

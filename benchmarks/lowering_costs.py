"""Measures every form that targets could be given a construct in, for deploykit/targets/lowering_costs.py.

Each form becomes a file of each target. Those of one case run interleaved in one process, on one thread, in an order
shuffled for each round; the clock is the processor time of that thread, so that other processes cost nothing but
caches. A figure is the median over rounds of the plain form's time over this one's, with a 95 % bootstrap interval.
The record has ``KEPT_ROUNDS`` of the raw samples.
For targets without a runtime here only the operations of the file are counted. Takes about half an hour; under a
real-time scheduler (chrt -f 5) the intervals are narrow even on a busy machine.
Run: python benchmarks/lowering_costs.py [part of a construct's name ...]
"""

from __future__ import annotations

import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Read once, at the import of what brings its own threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from lowering_forms import CASES, Case
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from deploykit.chatter import contained
from deploykit.errors import TargetError
from deploykit.graph.capture import capture, cast_graph
from deploykit.graph.graph import Graph, Pass
from deploykit.graph.passes.convolution_in_blocks import convolution_in_blocks
from deploykit.graph.passes.grid_sample_by_gather import grid_sample_by_gather
from deploykit.graph.passes.hard_activations_by_clamp import hard_activations_by_clamp
from deploykit.graph.passes.pixel_shuffle_by_transposes import pixel_shuffle_by_transposes
from deploykit.graph.passes.pixel_shuffle_channels_last import (
    pixel_shuffle_channels_last,
    wide_pixel_shuffle_channels_last,
)
from deploykit.graph.passes.prelu_as_leaky_relu import prelu_as_leaky_relu
from deploykit.graph.passes.prelu_as_relu_sum import prelu_as_relu_sum
from deploykit.graph.passes.transposed_convolution_by_phases import (
    overlapping_transposed_convolution_by_phases,
    transposed_convolution_by_phases,
)
from deploykit.graph.passes.two_class_softmax import two_class_softmax
from deploykit.latency.machine import device_name
from deploykit.metrics.interval import bootstrap_interval
from deploykit.pipeline import toolchain
from deploykit.recipe import Recipe, recipe_from_table
from deploykit.records import ExportPlan, to_json, versioned
from deploykit.targets.base import ExportRequest
from deploykit.targets.lowering_costs import CONSTRUCTS, FILE, PLAIN, UNMEASURED, Form, table
from deploykit.targets.table import TARGETS, part
from deploykit.vocab import InputKind, Layout, OutputKind, Precision, Target, TensorSpec

RECORD = Path(__file__).parent / FILE
PLACES = (
    (Target.ONNX, Precision.FP32),
    (Target.ONNX, Precision.FP16),
    (Target.TFLITE, Precision.FP32),
)
# In the first case of a construct only: LiteRT computes in float32 here too, and the rest is not run but counted.
ONCE = (
    (Target.TFLITE, Precision.FP16),
    (Target.COREML, Precision.FP16),
    (Target.COREAI, Precision.FP16),
)
# Far above what rounding gives one construct, far below what a wrong form gives.
TOLERANCES = {Precision.FP32: 1e-5, Precision.FP16: 1e-2}
SECONDS = 0.3
MIN_ROUNDS = 20
MAX_ROUNDS = 1200
# Of so many rounds, evenly spaced, the record keeps what every form took.
KEPT_ROUNDS = 40
SEED = 2026

PASSES: dict[str, Pass] = {
    one.__name__: one
    for one in (
        convolution_in_blocks,
        hard_activations_by_clamp,
        grid_sample_by_gather,
        overlapping_transposed_convolution_by_phases,
        pixel_shuffle_by_transposes,
        pixel_shuffle_channels_last,
        prelu_as_leaky_relu,
        prelu_as_relu_sum,
        transposed_convolution_by_phases,
        two_class_softmax,
        wide_pixel_shuffle_channels_last,
    )
}
# What every file says about itself.
_SAYS = {
    "description": "one construct",
    "license": "",
    "source": "",
    "version": "",
    "input.photo": "",
    "output.scores": "",
}

Run = Callable[[], Any]


def main() -> int:
    """Measure the cases whose construct has one of the arguments in its name; all without any."""
    wanted = [word.lower() for word in sys.argv[1:]]
    torch.set_num_threads(1)
    cases = [case for case in CASES if not wanted or any(word in case.construct.lower() for word in wanted)]
    kept = json.loads(RECORD.read_text("utf-8"))["body"]["rows"] if wanted and RECORD.is_file() else []
    measured = {case.construct for case in cases}
    rows = [row for row in kept if row["construct"] not in measured]
    for case in cases:
        first = all(row["construct"] != case.construct for row in rows)
        for target, precision in (*PLACES, *ONCE) if first else PLACES:
            with tempfile.TemporaryDirectory() as folder:
                forms = _measured(case, target, precision, Path(folder))
            rows.append(
                {
                    "construct": case.construct,
                    "case": case.name,
                    "target": target,
                    "precision": precision,
                    "forms": forms,
                }
            )
        _write(rows)
        print(case.construct, case.name, file=sys.stderr)
    _show()
    return 0


def _measured(case: Case, target: Target, precision: Precision, folder: Path) -> dict[str, Any]:
    """Return form → figures; a form that the target's converter does not take is left out."""
    x = torch.randn(*case.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = case.plain().eval()(x).numpy()
    runs: dict[str, Run] = {}
    found: dict[str, Any] = {}
    for name, graph, on_file in _graphs(case, x):
        path = folder / f"{len(found)}{TARGETS[target].suffix}"
        try:
            _export(graph, target, precision, path)
        except TargetError as error:
            print(f"{case.construct}, {target}: {name} is not taken: {error.found}", file=sys.stderr)
            continue
        if on_file and (target is not Target.TFLITE or not _rewritten(path, on_file)):
            continue
        contents = part(target, "inspection").read_contents(path)
        found[name] = {"operations": sum(contents.operations.values()), "ratio": None}
        run = _runner(target, path, x)
        if run is not None:
            error = np.linalg.norm(run() - expected) / np.linalg.norm(expected)
            if not error <= TOLERANCES[precision]:
                raise SystemExit(f"{case.construct}, {case.name}, {target}: {name} is wrong by {error:.1e}")
            runs[name] = run
    for name, figures in _raced(runs).items():
        found[name].update(figures)
    return found


def _graphs(case: Case, x: Tensor) -> list[tuple[str, Graph, tuple[str, ...]]]:
    """Return name, graph and rewrites of the file of each form."""
    plain = _captured(case.plain(), x)
    forms: list[tuple[str, Graph, tuple[str, ...]]] = [(PLAIN, plain, ())]
    for form in CONSTRUCTS[case.construct]:
        forms.append((form.name, _passed(plain, form), form.on_file))
    return [*forms, *((name, _captured(build(), x), ()) for name, build in case.forms.items())]


def _captured(network: nn.Module, x: Tensor) -> Graph:
    spec = TensorSpec("photo", tuple(x.shape), "float32", Layout.NCHW)
    return cast_graph(capture(network.eval(), [x], (spec,), ("scores",)), torch.float32)


def _passed(graph: Graph, form: Form) -> Graph:
    """Return ``graph`` after the passes of ``form``: as it is where they find nothing, which costs as much."""
    for name in form.passes:
        graph = PASSES[name](graph)
    return graph


def _export(graph: Graph, target: Target, precision: Precision, path: Path) -> None:
    row = TARGETS[target]
    plan = ExportPlan(
        target=target,
        precision=precision,
        layout=Layout.NCHW,
        input_kind=InputKind.TENSOR,
        output_kind=OutputKind.LOGITS,
        input_shapes=(graph.inputs[0].shape,),
        passes=(),
        opset=row.default_opset,
        minimum_os=row.default_minimum_os,
    )
    for rewrite in part(target, "lowering").PASSES:
        graph = rewrite(graph)
    request = ExportRequest(graph, plan, _recipe(graph.inputs[0].shape), _SAYS)
    with contained():
        part(target, "export").write(request, path)


def _recipe(shape: tuple[int, ...]) -> Recipe:
    inputs = {"name": "photo", "kind": "tensor", "shape": list(shape), "source": "a construct"}
    values = {
        "format_version": 1,
        "name": "construct",
        "description": "one construct",
        "license": "Apache-2.0",
        "source": "the benchmark of lowering costs",
        "network": {"factory": "deploykit.preflight:none"},
        "inputs": [inputs],
        "outputs": [{"name": "scores", "meaning": "scores"}],
        "tolerances": {one: {"relative_l2": 1e-2, "reason": "not verified"} for one in ("fp32", "fp16")},
    }
    return recipe_from_table(values, Path("construct.toml"))


def _rewritten(path: Path, names: tuple[str, ...]) -> bool:
    from deploykit.targets.tflite.rewriting import rewrite

    return any(report.fired for report in rewrite(path, names))


def _runner(target: Target, path: Path, x: Tensor) -> Run | None:
    """Return one inference of the file on ``x`` with as little around it as the runtime allows, or None."""
    if target is Target.ONNX:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        given = {session.get_inputs()[0].name: x.numpy()}
        return lambda: session.run(None, given)[0]
    if target is Target.TFLITE:
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(str(path), num_threads=1)
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x.numpy())
        result = interpreter.get_output_details()[0]["index"]

        def run() -> Any:
            interpreter.invoke()
            return interpreter.get_tensor(result)

        return run
    return None


def _raced(runs: dict[str, Run]) -> dict[str, dict[str, Any]]:
    """Return name → median seconds, and the median ratio of the plain form's time to its own, with its interval."""
    if PLAIN not in runs:
        return {}
    for run in runs.values():
        for _ in range(5):
            run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    order, shuffle = list(runs), random.Random(SEED)
    until = time.monotonic() + SECONDS * len(runs)
    while len(seconds[PLAIN]) < MIN_ROUNDS or (time.monotonic() < until and len(seconds[PLAIN]) < MAX_ROUNDS):
        shuffle.shuffle(order)
        for name in order:
            begin = time.thread_time_ns()
            runs[name]()
            seconds[name].append((time.thread_time_ns() - begin) / 1e9)
    figures: dict[str, dict[str, Any]] = {}
    kept = np.linspace(0, len(seconds[PLAIN]) - 1, KEPT_ROUNDS).astype(int)
    for name, own in seconds.items():
        ratios = np.array(seconds[PLAIN]) / np.array(own)
        interval = bootstrap_interval([ratios], np.median)
        assert interval is not None
        low, high = interval
        figures[name] = {
            "ratio": round(float(np.median(ratios)), 4),
            "low": round(low, 4),
            "high": round(high, 4),
            "seconds": round(statistics.median(own), 8),
            "rounds": len(own),
            "samples_us": " ".join(f"{own[place] * 1e6:.1f}" for place in kept),
        }
    return figures


def _write(rows: list[dict[str, Any]]) -> None:
    versions = {target.value: toolchain(target) for target, _ in (*PLACES, *ONCE)}
    body = {"machine": device_name(), "threads": 1, "versions": versions, "rows": to_json(rows)}
    temporary = RECORD.with_suffix(".tmp")
    temporary.write_text(json.dumps(versioned("lowering costs", body), indent=1) + "\n", encoding="utf-8")
    temporary.replace(RECORD)


def _show() -> None:
    """Print the table as the package reads it: every form's ratio, and the chosen one."""
    shown = Table("construct", "target", "accelerator", "form", "operations", "ratio", "lowest", "chosen")
    for entry in table():
        place = (entry.construct, f"{entry.target} {entry.precision}", entry.accelerator)
        if entry.grounds == UNMEASURED:
            counts = ", ".join(f"{cost.form.name} {cost.operations}" for cost in entry.costs)
            shown.add_row(*place, counts, "", UNMEASURED, "", entry.chosen.name)
            continue
        for cost in entry.costs:
            ratio = "" if cost.ratio is None else f"{cost.ratio:.2f}"
            lowest = "" if cost.lowest is None else f"{cost.lowest:.2f}"
            mark = "yes" if cost.form == entry.chosen else ("" if cost.form.is_open_to(entry.target) else "not offered")
            shown.add_row(*place, cost.form.name, str(cost.operations or ""), ratio, lowest, mark)
    Console(width=170).print(shown)


if __name__ == "__main__":
    sys.exit(main())

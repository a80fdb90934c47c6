"""LiteRT's ``benchmark_model``: its options, and what it prints.

The tool prints no single runs: per session their count, first, last, smallest, largest, mean and standard deviation in
whole microseconds, newer builds also the 5th, 50th and 95th percentile. Sources: tflite/tools/benchmark/
benchmark_model.cc and benchmark_tflite_model.cc in https://github.com/google-ai-edge/LiteRT.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deploykit.errors import DeviceError
from deploykit.latency_records import OperationTime, RunSummary

# Accelerator → options. XNNPACK is what LiteRT runs by default on a CPU; named, the tool says what it took.
ACCELERATORS: dict[str, tuple[str, ...]] = {
    "cpu": ("--use_xnnpack=true",),
    "cpu-without-xnnpack": ("--use_xnnpack=false",),
    "gpu": ("--use_gpu=true",),
}
# ELF machine numbers, and the names that Android gives those processors.
_MACHINES = {0x03: "x86", 0x28: "armeabi-v7a", 0x3E: "x86_64", 0xB7: "arm64-v8a"}
_NUMBER = r"-?[\d.]+(?:e[+-]?\d+)?"
_COUNT = re.compile(r"^(?:INFO: )?count=(\d+)(.*)$", re.MULTILINE)
_PAIR = re.compile(rf"(\w+)=({_NUMBER})")
_TIMINGS = re.compile(rf"Inference timings in us: Init: ({_NUMBER}), First inference: ({_NUMBER})")
_MEMORY = re.compile(rf"emory footprint[^:\n]*\(MB\): init=({_NUMBER}) overall=({_NUMBER})")
_APPLIED = re.compile(
    r"Explicitly applied (\w+) delegate, and the model graph will be (completely|partially) executed by the delegate"
)
_REPLACED = re.compile(r"Replacing (\d+) out of (\d+) node\(s\) with delegate \((\w+)\)")
_BACKEND = re.compile(r"Initialized (OpenCL|OpenGL)-based API")
_PROBLEM = re.compile(r"^(?:ERROR: .*|.*Unconsumed cmdline flags.*|Failed to .*|Benchmarking failed.*)$", re.MULTILINE)
_ROW = re.compile(
    rf"^\s*(?P<operation>\S.*?)\s+(?:{_NUMBER}\s+)?{_NUMBER}\s+(?P<mean_ms>{_NUMBER})"
    rf"\s+{_NUMBER}%\s+{_NUMBER}%\s+{_NUMBER}\s+\d+\s+(?P<name>\S.*)$",
    re.MULTILINE,
)


@dataclass(frozen=True)
class ToolRun:
    """What one run of the tool said. ``delegated``: the operations that the GPU took, of how many, where it says so.

    ``on_gpu`` is whole, partial or none, as the tool states it; ``backend`` is OpenCL or OpenGL.
    """

    summary: RunSummary
    warmup_runs: int
    load_s: float | None
    first_inference_s: float | None
    peak_memory_bytes: int | None
    on_gpu: str
    delegated: tuple[int, int] | None = None
    backend: str = ""
    operations: tuple[OperationTime, ...] = ()


def command_line(
    graph: str,
    *,
    accelerator: str,
    threads: int,
    runs: int,
    seconds: float,
    warmup_seconds: float,
    max_seconds: float,
    inputs: Sequence[tuple[str, tuple[int, ...]]] = (),
    profile: bool = False,
) -> list[str]:
    """Return the tool's options; ``inputs`` are file and shape of each, in the order of the model's own inputs."""
    names = [f"input{index}" for index in range(len(inputs))]
    options = [
        f"--graph={graph}",
        f"--num_threads={threads}",
        f"--num_runs={runs}",
        f"--min_secs={seconds:g}",
        f"--max_secs={max_seconds:g}",
        "--warmup_runs=1",
        f"--warmup_min_secs={warmup_seconds:g}",
        *ACCELERATORS[accelerator],
    ]
    if inputs:
        shapes = ":".join(",".join(map(str, shape)) for _, shape in inputs)
        files = ",".join(f"{name}:{file}" for name, (file, _) in zip(names, inputs, strict=True))
        options += [f"--input_layer={','.join(names)}", f"--input_layer_shape={shapes}"]
        options.append(f"--input_layer_value_files={files}")
    return [*options, "--enable_op_profiling=true"] if profile else options


def parse(text: str) -> ToolRun | None:
    """Return what the tool measured, or None where it did not come to the end of its runs."""
    counts = [_summary(int(count), rest) for count, rest in _COUNT.findall(text)]
    timings = _TIMINGS.search(text)
    if len(counts) < 2 or timings is None:
        return None
    memory = _MEMORY.search(text)
    applied = dict(_APPLIED.findall(text))
    replaced = [(int(some), int(total)) for some, total, name in _REPLACED.findall(text) if "gpu" in name.lower()]
    backend = _BACKEND.search(text)
    return ToolRun(
        summary=counts[-1],
        warmup_runs=counts[-2].runs,
        load_s=float(timings[1]) * 1e-6,
        first_inference_s=float(timings[2]) * 1e-6,
        # "Overall" is the growth of ru_maxrss since the start of the tool (tflite/profiling/memory_info.cc).
        peak_memory_bytes=round(float(memory[2]) * 2**20) if memory else None,
        on_gpu={"completely": "whole", "partially": "partial"}.get(applied.get("GPU", ""), "none"),
        delegated=replaced[0] if replaced else None,
        backend=backend[1] if backend else "",
        operations=parse_operations(text),
    )


def problem(text: str) -> str:
    """Return the lines in which the tool says what is wrong, as one, or an empty text."""
    return "; ".join(dict.fromkeys(line.strip()[:160] for line in _PROBLEM.findall(text)))[:400]


def parse_operations(text: str) -> tuple[OperationTime, ...]:
    """Return the mean time of each operation from the table "Run Order" of the regular runs, in their order."""
    regular = text.partition("Operator-wise Profiling Info for Regular Benchmark Runs:")[2]
    table = regular.partition(" Run Order ")[2].partition("==============================\n")[2]
    rows = _ROW.finditer(table.partition("==============================")[0])
    return tuple(
        OperationTime(name=row["name"].strip(), operation=row["operation"], seconds=float(row["mean_ms"]) * 1e-3)
        for row in rows
    )


def architecture_of(program: Path) -> str:
    """Return Android's name for the processor that ``program`` was built for.

    Raises:
        DeviceError: the file is missing or no Linux program.
    """
    try:
        with program.open("rb") as file:
            head = file.read(20)
    except OSError as error:
        raise _no_tool(program, error.strerror or str(error)) from error
    if head[:4] != b"\x7fELF" or len(head) < 20:
        raise _no_tool(program, "a file that is no Linux program")
    number = int.from_bytes(head[18:20], "little" if head[5] == 1 else "big")
    return _MACHINES.get(number, f"processor number {number}")


def _no_tool(program: Path, found: str) -> DeviceError:
    return DeviceError(
        "benchmark_model cannot be used.",
        where=str(program),
        found=found,
        expected="LiteRT's benchmark_model, built for the processor of the device",
        next_step="build it: bazel build -c opt --config=android_arm64 tflite/tools/benchmark:benchmark_model",
    )


def _summary(count: int, rest: str) -> RunSummary:
    """Return one printed line of statistics; of runs that all took equally long the tool prints ``curr`` alone."""
    micros = {key: float(value) * 1e-6 for key, value in _PAIR.findall(rest)}
    last = micros.get("curr", 0.0)
    return RunSummary(
        runs=count,
        mean_s=micros.get("avg", last),
        min_s=micros.get("min", last),
        max_s=micros.get("max", last),
        std_s=micros.get("std", 0.0),
        first_s=micros.get("first", last),
        last_s=last,
        median_s=micros.get("median"),
        p5_s=micros.get("p5"),
        p95_s=micros.get("p95"),
    )

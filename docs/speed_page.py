"""docs/speed.md and docs/speed.svg: exported files against the converters' own, as measured on one machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RECORD = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "against_converters.json"
RUNTIMES = {"onnx": "ONNX Runtime", "tflite": "LiteRT"}
COLORS = {"onnx": "#2b6cb0", "tflite": "#dd6b20"}
INTRODUCTION = """
Made by `python benchmarks/against_converters.py`: interleaved pairs in one process, one thread, median of the paired
ratios with its 95 % interval. The rival is the converter used as its own documentation says (`torch.onnx.export` and
onnxsim, `litert_torch.convert`) on the same outputs; where it fails, the plain conversion (`--optimize off`), which has
only the rewrites without which the converter refuses the network. Ratios above 1 say that the deploykit file is faster.
The raw samples are in `benchmarks/results/against_converters.json`. Another processor gives other ratios: run it on
yours.
"""
BOUNDS = """
## What bounds each network

- SINet: PReLU, shuffles and arithmetic on subnormal numbers made most of the converter's time in ONNX Runtime. LiteRT's
  XNNPACK kernels, which it uses unless told otherwise, flush subnormal numbers to zero (1e-20 times 1e-20 is 0 there;
  LiteRT's other kernels and ONNX Runtime give 1e-40) and are cheap on single values, so that only shuffles and PReLU
  are left to win; more than half of what remains are convolutions, whose kernels work on 16 channels at a time where
  SINet has 12, 24 or 2.
- RCRNet: merged branches, and 1x1 convolutions before the resize instead of after it.
- PortraitNet: convolution and ReLU but for its transposed convolutions, which are computed by phases.
- MobileNetV3 + SAPPM: in ONNX Runtime its two GridSample operations take half of the time; written as gathers they
  take 3.7 times as long. The converter's own TFLite file takes grid sampling and pooling apart into hundreds of
  operations, which is what the large ratio there stands for.
- ELB: plain convolution and ReLU, which the runtimes fold by themselves. In ONNX Runtime it computes at 7 to 9 tenths
  of what a large matrix product reaches, by the load of the machine's other core: nothing is left to rewrite.

## Transposes inside TFLite files

TFLite keeps channels last, PyTorch first. TRANSPOSE operations in the files of the five networks, in fp32:

| network | NCHW | NHWC | NCHW without the rewrites of the file |
|---|---|---|---|
| SINet | 2 | 0 | 3 |
| RCRNet | 2 | 0 | 8 |
| PortraitNet | 2 | 0 | 8 |
| ELB | 2 | not counted | 2 |
| MobileNetV3 + SAPPM | 14 | not counted | 18 |

The two of an NCHW file are its input and its output: `--layout nhwc` leaves none, and no pair that undoes itself stands
inside (`transpose_pairs` took three out of MobileNetV3 + SAPPM). That network has others, for its grid sampling as
gathers and its resizing as products.
A pixel shuffle as DEPTH_TO_SPACE instead of RESHAPE, TRANSPOSE and RESHAPE
saves little time (1.00 to 1.02 times as fast over a whole network), and is two operations less.
"""
WIDTH, LEFT, ROW, HEAD = 760, 240, 22, 34


def page(made: str) -> str:
    """Return the page."""
    body = _body()
    limits = body["limits"]
    parts = [made, "# Speed against the converters", INTRODUCTION, f"Machine: {body['machine']}, 1 thread.", ""]
    parts += ["![Ratios of every network on both runtimes](speed.svg)", ""]
    parts += [f"Geometric mean over {body['summary']['pairs']} pairs: {body['summary']['geometric_mean']:.2f}.", ""]
    head = (
        "network",
        "runtime",
        "ours, ms",
        "against the rival",
        "95 %",
        "rival",
        "against PyTorch eager",
        "max error",
    )
    parts += _table(head, _ratios(body))
    parts += ["", "## Distance to the machine's limit", ""]
    parts += [
        f"A large matrix product reaches {limits['macs_per_s'] / 1e9:.1f} G multiply-accumulates per second, a large "
        f"copy {limits['bytes_per_s'] / 1e9:.1f} GB per second, in the same run. `bytes` counts inputs, outputs and "
        "weights of every operation once, as if nothing stayed in a cache.",
        "",
    ]
    parts += _table(("network", "runtime", "MACs", "G MACs/s", "share", "GB/s", "share"), _limits(body))
    parts += ["", "## Operations left", ""]
    parts += ["Operations and transposes of the file, and of the plain conversion (`--optimize off`).", ""]
    parts += _table(("network", "target", "ours", "plain", "transposes", "plain", "converter alone"), _operations(body))
    parts += ["", BOUNDS.strip()]
    failed = sorted(set(_failures(body)))
    if failed:
        parts += ["", "## Converters that failed", "", *(f"- {one}" for one in failed)]
    return "\n".join([*parts, ""])


def chart(made: str) -> str:
    """Return the bar chart: one bar for each network and runtime, its interval, and a line at 1."""
    runs = [(row["network"], run) for row in _body()["networks"] for run in row["runs"] if "against_rival" in run]
    most = max(run["against_rival"]["high"] for _, run in runs)
    scale = (WIDTH - LEFT - 90) / most
    height = HEAD + ROW * len(runs) + 16
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="sans-serif" '
        'font-size="12">',
        made,
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="{LEFT}" y="18">times as fast as the converter\'s own file (bar: median, line: 95 % interval)</text>',
    ]
    for place, (network, run) in enumerate(runs):
        top, color = HEAD + ROW * place, COLORS[run["runtime"]]
        found = run["against_rival"]
        ends = [LEFT + scale * found[name] for name in ("low", "high", "ratio")]
        parts += [
            f'<text x="{LEFT - 8}" y="{top + 13}" text-anchor="end">{network}, {RUNTIMES[run["runtime"]]}</text>',
            f'<rect x="{LEFT}" y="{top + 2}" width="{ends[2] - LEFT:.1f}" height="14" fill="{color}"/>',
            f'<line x1="{ends[0]:.1f}" x2="{ends[1]:.1f}" y1="{top + 9}" y2="{top + 9}" stroke="black"/>',
            f'<text x="{ends[1] + 6:.1f}" y="{top + 13}">{found["ratio"]:.2f}</text>',
        ]
    one = LEFT + scale
    parts.append(f'<line x1="{one:.1f}" x2="{one:.1f}" y1="{HEAD - 6}" y2="{height - 10}" stroke="gray"/>')
    return "\n".join([*parts, "</svg>", ""])


def _body() -> dict[str, Any]:
    body: dict[str, Any] = json.loads(RECORD.read_text(encoding="utf-8"))["body"]
    return body


def _runs(body: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for row in body["networks"]:
        sides = "x".join(str(side) for side in row["size"])
        public = ", public checkpoint" if row["checkpoint"] == "public" else ""
        for run in row["runs"]:
            yield f"{row['network']} {sides}{public}", run


def _ratios(body: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for name, run in _runs(body):
        found, eager = run.get("against_rival"), run["against_eager"]
        yield (
            name,
            RUNTIMES[run["runtime"]],
            f"{run['median_s']['ours'] * 1e3:.2f}",
            f"**{found['ratio']:.2f}**" if found else "-",
            f"{found['low']:.2f} to {found['high']:.2f}" if found else "-",
            run["rival"],
            f"{eager['ratio']:.2f} ({eager['low']:.2f} to {eager['high']:.2f})",
            f"{run['max_abs_error']:.1e}",
        )


def _limits(body: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    limits = body["limits"]
    for name, run in _runs(body):
        yield (
            name,
            RUNTIMES[run["runtime"]],
            f"{run['ours']['macs'] / 1e6:.1f} M",
            f"{run['macs_per_s'] / 1e9:.1f}",
            f"{run['macs_per_s'] / limits['macs_per_s']:.0%}",
            f"{run['bytes_per_s'] / 1e9:.1f}",
            f"{run['bytes_per_s'] / limits['bytes_per_s']:.0%}",
        )


def _operations(body: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for row in body["networks"]:
        for one in row["counted"]:
            plain, alone = one["plain"], one["converter"]
            yield (
                row["network"],
                one["target"],
                str(one["ours"]["operations"]),
                str(plain["operations"]) if plain else "fails",
                str(one["ours"]["transposes"]),
                str(plain["transposes"]) if plain else "-",
                f"{alone['operations']}, {alone['transposes']} transposes" if alone else "fails",
            )


def _failures(body: dict[str, Any]) -> Iterator[str]:
    for row in body["networks"]:
        for run in row["runs"]:
            if run["rival_failed"]:
                yield f"{row['network']}, {run['runtime']}: `{run['rival_failed']}`"
        for one in row["counted"]:
            if one["converter_failed"]:
                yield f"{row['network']}, {one['target']}: `{one['converter_failed']}`"


def _table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> list[str]:
    return [
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]

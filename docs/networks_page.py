"""docs/networks.md: the bundled networks as measured here beside the figures that their papers print."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from deploykit.papers.compare import Comparison, Line, compare
from deploykit.papers.figures import load_papers

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "benchmarks" / "results" / "networks.json"
MANIFEST = ROOT / "checkpoints" / "manifest.toml"
INTRODUCTION = """
Made by `python benchmarks/networks.py`, which verifies every bundled checkpoint, exports it to every target in fp32
and fp16 and evaluates checkpoint and files on the same held-out **synthetic** portraits. These scores compare our own
files with each other. They cannot be compared with a paper's: the papers' data sets are photos and are not at hand.
"""
FILES = """
IoUs are those of the checkpoint on all 128 held-out portraits.

## Files

Two-class mIoU of each file on the first so many of these portraits, and its size. Compare along a row: few portraits
give another mean than all 128.
"""
STATED = """
What the papers print, in the convention that reproduces it ([`deploykit papers`](commands.md) has every row, with
devices and speeds). `macs` counts 1 for each multiply-accumulate of convolutions, transposed ones, linear layers and
matrix products. Parameters of the training form are those of the outputs named in the last column: MobileNetV3 + SAPPM
has 247,651 with the boundary head, as its paper counts, and 289,413 with the auxiliary head as well.
"""


def page(made: str) -> str:
    """Return the page."""
    networks = json.loads(RECORD.read_text(encoding="utf-8"))["body"]
    manifest = tomllib.loads(MANIFEST.read_text(encoding="utf-8"))
    parts = [made, "# Networks", INTRODUCTION]
    parts += ["| network | input | parameters | deployed | M `macs` | portrait IoU | two-class mIoU |"]
    parts += ["|---|---|---|---|---|---|---|"]
    parts += [_network(one, manifest[f"{one['recipe']}.pt"]) for one in networks]
    parts += [FILES]
    parts += ["| network | portraits | checkpoint | " + " | ".join(_kinds(networks)) + " |"]
    parts += ["|---" * (3 + len(_kinds(networks))) + "|"]
    parts += [_files(one, _kinds(networks)) for one in networks]
    parts += ["", "## Stated and measured", STATED]
    parts += [
        "| network | figure | stated | measured | deviation | where | counted as |",
        "|---|---|---|---|---|---|---|",
    ]
    for comparison in compare(load_papers(), None):
        parts += list(_stated(comparison))
    return "\n".join([*parts, ""])


def _network(one: dict[str, Any], entry: dict[str, Any]) -> str:
    height, width = one["input_size"]
    cells = (
        one["recipe"],
        f"{height}x{width}",
        f"{one['parameters']:,}",
        f"{one['deployed_parameters']:,}",
        f"{one['macs']['macs'] / 1e6:.1f}",
        f"{entry['held_out_foreground_iou']:.4f}",
        f"{entry['held_out_two_class_miou']:.4f}",
    )
    return "| " + " | ".join(cells) + " |"


def _kinds(networks: Sequence[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(f"{file['target']} {file['precision']}" for one in networks for file in one["files"]))


def _files(one: dict[str, Any], kinds: Sequence[str]) -> str:
    found = {f"{file['target']} {file['precision']}": file for file in one["files"]}
    cells = [one["recipe"], str(one["samples"]), f"{one['two_class_miou']:.4f}"]
    for kind in kinds:
        file = found.get(kind)
        cells.append("-" if file is None else f"{file['two_class_miou']:.4f}, {file['size_bytes'] / 1000:.0f} kB")
    return "| " + " | ".join(cells) + " |"


def _stated(comparison: Comparison) -> Iterator[str]:
    for line in comparison.lines:
        if line.figure in ("params_millions", "flops_giga"):
            counted = line.convention or "parameters"
            form = "folded and merged" if line.merged else "training form"
            cells = (
                line.recipe,
                {"params_millions": "parameters, M", "flops_giga": "cost, G"}[line.figure],
                _number(line.stated),
                _number(line.measured),
                "-" if line.deviation_percent is None else f"{line.deviation_percent:+.1f} %",
                "; ".join(f"{place.paper}, {place.place}" for place in line.places) or "not stated",
                f"{counted}{_at(line)}, {form} with {', '.join(line.outputs)}",
            )
            yield "| " + " | ".join(cells) + " |"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _at(line: Line) -> str:
    return "" if line.input_size is None else f" at {line.input_size[0]}x{line.input_size[1]}"

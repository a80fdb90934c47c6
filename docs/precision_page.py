"""docs/precision.md: what half precision and integers cost the bundled networks in masks, as recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RECORD = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "quantization.json"
INTRODUCTION = """
Made by `python benchmarks/quantization.py`: every file was made with the automatic settings, run on its own runtime
(Core ML: the reference interpreter) and judged on held-out **synthetic** portraits beside the checkpoint. Numbers are
points (hundredths) of the checkpoint's own figure, so that -0.10 is a tenth of a point lost. Defaults: what a quantizer
does by itself, ranges from the smallest to the largest value, nothing equalized, corrected or left in float.
"""
SIZES = """
Weights: bytes of all stored numbers, scales and zero points included, of the same in fp32. Per-channel integers need
for a channel of n weights at least n bytes, a scale of 4 and a bias of 4, instead of 4n + 4: 26 % cannot be reached
below 174 weights a channel, and these networks have 20 to 130 on average.

A TFLite file in fp16 keeps slopes, biases, scales and shifts of channels in fp32: halving them takes a tensor and an
operation for each, which cost as many bytes as they save (SINet: 8 kB fewer weights, the same file).
"""
PHOTOS = """
## The real SINet on two photos

IoU of the masks of its w8a8 file with those of the checkpoint in fp32.
"""
FIGURES = {"two_class_miou": "mIoU", "boundary_f1": "boundary F1", "edge_iou": "edge IoU", "flicker": "flicker"}


def page(made: str) -> str:
    """Return the page."""
    record = json.loads(RECORD.read_text(encoding="utf-8"))["body"]
    cells = [one for one in record["cells"] if one["state"] == "made"]
    parts = [made, "# Precision", INTRODUCTION]
    parts += ["## fp16", "", *_table([one for one in cells if one["precision"] == "fp16"])]
    parts += ["", "## int8 weights and activations (w8a8)", ""]
    integers = [one for one in cells if one["precision"] == "int8"]
    parts += _table([one for one in integers if not one["defaults"]], [one for one in integers if one["defaults"]])
    others = [one for one in cells if one["precision"] not in ("fp16", "int8")]
    if others:
        parts += ["", "## Other precisions", "", *_table(others)]
    parts += [SIZES]
    if record["photos"]:
        names = sorted(record["photos"][0]["iou"])
        parts += [PHOTOS, f"| target | {' | '.join(names)} | layers in float | weights |"]
        parts += ["|---" * (3 + len(names)) + "|"]
        for one in record["photos"]:
            values = " | ".join(f"{one['iou'][name]:.4f}" for name in names)
            kept = f"{one['kept']} of {one['layers']}"
            parts.append(f"| {one['target']} | {values} | {kept} | {one['weight_share']:.1%} |")
    not_made = [one for one in record["cells"] if one["state"] != "made"]
    if not_made:
        parts += ["", "## Not made", "", "| network | target | precision | reason |", "|---|---|---|---|"]
        for one in not_made:
            precision = one["precision"] + (", defaults" if one["defaults"] else "")
            reason = " ".join(one["reason"].split()).replace("|", "/")
            parts.append(f"| {one['network']} | {one['target']} | {precision} | {reason} |")
    return "\n".join([*parts, ""])


def _table(cells: list[dict[str, Any]], beside: list[dict[str, Any]] | None = None) -> list[str]:
    more = ["mIoU, defaults", "boundary F1, defaults"] if beside is not None else []
    headings = [
        "network",
        "target",
        "precision",
        *FIGURES.values(),
        *more,
        "settings",
        "weights",
        "file kB",
        "portraits",
    ]
    found = ["| " + " | ".join(headings) + " |", "|---" * len(headings) + "|"]
    for one in cells:
        row = [one["network"], one["target"], one["precision"]]
        row += [_points(one, metric) for metric in FIGURES]
        if beside is not None:
            usual = next((two for two in beside if _place(two) == _place(one)), None)
            row += [_points(usual, metric) for metric in ("two_class_miou", "boundary_f1")]
        row += [_settings(one), f"{one['weight_share']:.1%}", f"{one['size_bytes'] / 1000:.0f}", str(one["samples"])]
        found.append("| " + " | ".join(row) + " |")
    return found


def _place(cell: dict[str, Any]) -> tuple[str, str]:
    return cell["network"], cell["target"]


def _points(cell: dict[str, Any] | None, metric: str) -> str:
    value = None if cell is None else cell["points"].get(metric)
    return "-" if value is None else f"{value:+.2f}"


def _settings(cell: dict[str, Any]) -> str:
    words = [cell["estimator"]] if cell["estimator"] else []
    words += [f"equalized {cell['equalization']:g}"] if cell["equalization"] else []
    words += [f"{cell['kept']} of {cell['layers']} layers in float"] if cell["kept"] else []
    return ", ".join(words) or "-"

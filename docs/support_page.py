"""docs/support.md: what becomes of each construct on each target, as the matrix states and as it was run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from deploykit.preflight.constructs import GROUPS, Construct
from deploykit.preflight.matrix import Cell, cell
from deploykit.preflight.neural_engine import NEURAL_ENGINE, WHOLE_PROGRAM
from deploykit.preflight.rules import MANY, REFUSALS, ROUNDED, SLOW
from deploykit.targets.table import TARGETS
from deploykit.vocab import FLOAT_PRECISIONS, Precision, Target

RECORD = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "support.json"
INTRODUCTION = """
What becomes of each construct on each target. **exact**: exported as it is, equal to PyTorch within the tolerance
(relative L2 1e-5 in fp32, 1e-2 in fp16, in a network of three layers around the construct). A name is the
[pass](passes.md) that rewrites it first, exactly. **refused**: `deploykit export` stops with an error, and so does
`deploykit export --dry-run`, which says it before anything is converted. ✓ marks a cell that was exported by the
converter, run by the runtime and compared, in both precisions unless one is named; `make test-full` does so for every
cell, `python benchmarks/support.py` records it here.
"""
RULES = """
## What a dry run says beside

About the operations that are left when deploykit has rewritten what it can. Advice never fails an export. A converter
that takes one operation apart into eight or more is reported as well: that is asked of the installed converter.
"""


def page(made: str) -> str:
    """Return the page."""
    record = json.loads(RECORD.read_text("utf-8"))["body"]
    run = {(one["construct"], one["target"], one["precision"]): one for one in record["outcomes"]}
    parts = [made, "# Support", INTRODUCTION, "Run with:", ""]
    for target, versions in record["versions"].items():
        own = ", ".join(
            f"{name} {version}" for name, version in versions.items() if name not in ("deploykit", "python")
        )
        parts.append(f"- {target}: {own}")
    reasons: list[str] = []
    for heading, group in GROUPS.items():
        parts += ["", f"## {heading}", "", "| construct | " + " | ".join(TARGETS) + " |"]
        parts.append("|---" * (1 + len(TARGETS)) + "|")
        parts += [_row(one, run, reasons) for one in group]
    parts += ["", "## Why refused", "", *(f"{number}. {reason}" for number, reason in enumerate(reasons, 1))]
    parts += [RULES, "| target | precision | construct | verdict | why | source |", "|---|---|---|---|---|---|"]
    for rule in (*REFUSALS, *MANY, *SLOW, *ROUNDED, *WHOLE_PROGRAM, *NEURAL_ENGINE):
        at = "both" if len(rule.precisions) == len(FLOAT_PRECISIONS) else ", ".join(rule.precisions)
        source = "measured here" if rule.source.startswith("docs/") else f"<{rule.source}>"
        parts.append(f"| {rule.target} | {at} | {rule.construct} | {rule.verdict} | {rule.reason} | {source} |")
    return "\n".join([*parts, ""])


def _row(one: Construct, run: dict[tuple[str, str, str], Any], reasons: list[str]) -> str:
    texts = [_cell(one.name, target, run, reasons) for target in TARGETS]
    return f"| {one.name}: {one.what} | " + " | ".join(texts) + " |"


def _cell(name: str, target: Target, run: dict[tuple[str, str, str], Any], reasons: list[str]) -> str:
    """Return what both precisions have in common once, and what differs for each."""
    texts = {}
    for precision in FLOAT_PRECISIONS:
        stated = cell(name, target, precision)
        made = run.get((name, target, precision))
        mark = " ✓" if made is not None and bool(made["refused"]) == bool(stated.refused) else ""
        texts[precision] = _stated(stated, reasons) + mark
    if len(set(texts.values())) == 1:
        return texts[Precision.FP32]
    return "; ".join(f"{precision}: {text}" for precision, text in texts.items())


def _stated(stated: Cell, reasons: list[str]) -> str:
    if stated.refused:
        if stated.refused not in reasons:
            reasons.append(stated.refused)
        return f"refused ({reasons.index(stated.refused) + 1})"
    return ", ".join(f"`{name}`" for name in stated.passes) or "exact"

"""Exports every cell of the support matrix for real and records what each gave, for docs/support.md.

Takes tens of minutes; a cell that was recorded with the versions at hand is not exported again, unless --all.
Run: python benchmarks/support.py [--all]
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

from deploykit.pipeline import toolchain
from deploykit.preflight.constructs import CONSTRUCTS
from deploykit.preflight.matrix import cell
from deploykit.preflight.outcome import export_cell, prepared
from deploykit.records import to_json, versioned
from deploykit.targets.table import TARGETS
from deploykit.vocab import FLOAT_PRECISIONS, Precision

RECORD = Path(__file__).parent / "results" / "support.json"


def main() -> int:
    warnings.simplefilter("ignore")
    versions = {target.value: toolchain(target) for target in TARGETS}
    known: dict[tuple[str, ...], Any] = {}
    if RECORD.is_file() and "--all" not in sys.argv[1:]:
        body = json.loads(RECORD.read_text("utf-8"))["body"]
        same = [target for target in versions if body["versions"].get(target) == versions[target]]
        known = {_key(one): one for one in body["outcomes"] if one["target"] in same and not _departs(one)}
    outcomes = []
    departed = []
    for construct in CONSTRUCTS:
        exporter = None
        for target in TARGETS:
            for precision in FLOAT_PRECISIONS:
                outcome = known.get((construct, target, precision))
                if outcome is None:
                    exporter = exporter or prepared(construct)
                    with tempfile.TemporaryDirectory() as folder:
                        made = export_cell(exporter, construct, target, precision, Path(folder))
                    outcome = to_json(made)
                    departure = made.departs(cell(construct, target, precision))
                    print(construct, target, precision, departure or made.relative_l2 or made.refused, file=sys.stderr)
                    if departure:
                        departed.append((construct, target, precision, departure))
                outcomes.append(outcome)
        _write({"versions": versions, "outcomes": [*outcomes, *_rest(known, outcomes)]})
    _write({"versions": versions, "outcomes": outcomes})
    for one in departed:
        print("not as stated:", *one, file=sys.stderr)
    return 1 if departed else 0


def _key(one: dict[str, Any]) -> tuple[str, ...]:
    return (one["construct"], one["target"], one["precision"])


def _departs(one: dict[str, Any]) -> bool:
    from deploykit.preflight.outcome import Outcome
    from deploykit.vocab import Target

    construct, target, precision = one["construct"], Target(one["target"]), Precision(one["precision"])
    if construct not in CONSTRUCTS:
        return True
    made = Outcome(construct, target, precision, tuple(one["passes"]), one["relative_l2"], one["refused"])
    return bool(made.departs(cell(construct, target, precision)))


def _rest(known: dict[tuple[str, ...], Any], outcomes: list[Any]) -> list[Any]:
    """Return what was known and has not been looked at yet, so that an interrupted run loses nothing."""
    seen = {_key(one) for one in outcomes}
    return [one for key, one in known.items() if key not in seen]


def _write(body: dict[str, Any]) -> None:
    temporary = RECORD.with_suffix(".tmp")
    temporary.write_text(json.dumps(versioned("support", body), indent=1) + "\n", encoding="utf-8")
    temporary.replace(RECORD)


if __name__ == "__main__":
    sys.exit(main())

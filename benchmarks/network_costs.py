"""Counts parameters and cost of every network that the papers speak of, so that deploykit papers need not.

Each is counted in the convention and the form in which its paper's figure comes out (benchmarks/papers.toml). Counts
do not depend on the machine. Takes minutes. Run: python benchmarks/network_costs.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from deploykit.papers.compare import all_wanted
from deploykit.papers.figures import load_papers
from deploykit.papers.measured import COUNTS_FILE, count, counts_record

FILE = Path(__file__).parent / COUNTS_FILE


def main() -> None:
    counts = count(all_wanted(load_papers()), lambda message: print(message, file=sys.stderr))
    temporary = FILE.with_suffix(".tmp")
    temporary.write_text(json.dumps(counts_record(counts), indent=2) + "\n", encoding="utf-8")
    temporary.replace(FILE)


if __name__ == "__main__":
    main()

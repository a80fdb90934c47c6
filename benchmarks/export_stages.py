"""Where the time of ``deploykit export --target all`` goes, as shares of one run, and how fast the command starts.

Absolute seconds on a shared machine swing by a factor of two: read the shares. The start of the command is given as
a ratio to that of the bare interpreter, medians of interleaved pairs. Run: python benchmarks/export_stages.py
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from deploykit.latency.machine import device_name

RESULTS = Path(__file__).parent / "results"
PAIRS = 15


def start_ratio() -> dict[str, float]:
    """Return median seconds of ``deploykit --help`` and of the bare interpreter, and their ratio."""
    commands = {
        "help": [sys.executable, "-c", "from deploykit.cli.main import main; main()", "--help"],
        "bare": [sys.executable, "-c", "pass"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(PAIRS):
        for name in sorted(commands, reverse=bool(turn % 2)):
            begin = time.perf_counter()
            subprocess.run(commands[name], check=True, stdout=subprocess.DEVNULL)
            seconds[name].append(time.perf_counter() - begin)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {"help_s": medians["help"], "bare_s": medians["bare"], "ratio": medians["help"] / medians["bare"]}


def stages(recipe: str) -> dict[str, float]:
    """Return stage → seconds of one export of ``recipe`` to every installed target."""
    begin = time.perf_counter()
    seconds: dict[str, float] = {}
    marks = [("importing and loading", begin)]

    def step(message: str) -> None:
        now = time.perf_counter()
        name, since = marks[-1]
        seconds[name] = seconds.get(name, 0.0) + now - since
        marks.append((message, now))

    import deploykit

    with tempfile.TemporaryDirectory() as folder:
        deploykit.export(recipe, output_dir=folder, step=step)
    step("end")
    return seconds


def main() -> None:
    """Print the figures and keep them by recipe."""
    recipe = sys.argv[1] if len(sys.argv) > 1 else "sinet"
    found = stages(recipe)
    total = sum(found.values())
    record = {
        "machine": device_name(),
        "recipe": recipe,
        "total_s": round(total, 2),
        "shares": {name: round(value / total, 3) for name, value in found.items()},
        "start": {name: round(value, 4) for name, value in start_ratio().items()},
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"export_stages_{recipe}.json").write_text(json.dumps(record, indent=2) + "\n")
    sys.stdout.write(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()

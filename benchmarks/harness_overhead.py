"""What the harness of ``deploykit bench`` adds to a run, beside a bare timing loop on the same session.

One ONNX Runtime session is timed in turns by a loop of nothing but the clock and the call, and by the agent's own
sampling with all that it does between blocks: events, conditions, intervals. Turns are in counterbalanced order, one
pinned thread; the figure is the median of the ratios of medians, with its 95 % interval by bootstrap over pairs.
Run on a quiet machine: python benchmarks/harness_overhead.py [RECIPE] [--pairs N]
Exit code 1 where the interval begins above 2 %.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import deploykit
from deploykit.latency.agent import cores
from deploykit.latency.agent.conditions import Watch
from deploykit.latency.agent.events import Stream
from deploykit.latency.agent.meter import Meter
from deploykit.latency.agent.runtimes import Session, prepared
from deploykit.latency.agent.steady import Turn, sample, warm_up
from deploykit.latency.inputs import build_inputs, save_inputs
from deploykit.latency.machine import this_machine
from deploykit.latency.measure import Protocol
from deploykit.records import to_json, versioned
from deploykit.vocab import Target

RESULTS = Path(__file__).parent / "results"
LIMIT = 0.02
# Short turns, so that a busy moment of the machine hits both ways alike.
RUNS = 20


def overhead(session: Session, pairs: int, *, runs: int = RUNS) -> dict[str, Any]:
    """Return the ratio of the harness's median to the bare loop's over ``pairs`` of turns of ``runs`` runs each."""
    pinned = cores.chosen("auto", 1)
    cores.pin(pinned)
    protocol = Protocol(min_runs=runs, min_seconds=0.0, precision_target=None, max_seconds=3600.0)
    medians: dict[str, list[float]] = {"bare": [], "harness": []}
    kept = os.dup(1), os.dup(2)
    with tempfile.TemporaryFile() as sink:
        # The stream of events is stdout, as in the agent.
        os.dup2(sink.fileno(), 1)
        stream, printed = Stream(), sys.stdout
        watch = Watch(pinned, stream.now_s)
        turn = Turn("session", session, protocol.limits())
        warm_up(turn, stream.emit)

        def harness() -> list[float]:
            fresh = Turn("session", session, protocol.limits())
            fresh.runs_of_a_block = turn.runs_of_a_block
            # It reads the counters as for one thread, and takes nothing off: the bare loop cannot either.
            fresh.meter = Meter(threads=2)
            sample([fresh], protocol.seed, stream.emit, watch.read, origin_ns=stream.origin_ns)
            return [run for block in fresh.blocks for run in block]

        ways: dict[str, Callable[[], list[float]]] = {"bare": lambda: bare(session, runs), "harness": harness}
        for pair in range(pairs):
            for name in sorted(ways, reverse=bool(pair % 2)):
                medians[name].append(statistics.median(ways[name]()))
    os.dup2(kept[0], 1)
    os.dup2(kept[1], 2)
    sys.stdout = sys.__stdout__ or printed
    ratios = np.array(medians["harness"]) / np.array(medians["bare"])
    drawn = np.random.default_rng(2026).choice(ratios, size=(2000, len(ratios)))
    low, high = np.percentile(np.median(drawn, axis=1), [2.5, 97.5])
    return {
        "pairs": pairs,
        "runs": runs,
        "bare_median_s": statistics.median(medians["bare"]),
        "overhead": float(np.median(ratios)) - 1,
        "interval": [float(low) - 1, float(high) - 1],
        "limit": LIMIT,
    }


def bare(session: Session, runs: int) -> list[float]:
    """Return the seconds of ``runs`` runs, timed by nothing but the clock."""
    run, clock = session.run, time.perf_counter
    found = []
    for _ in range(runs):
        start = clock()
        run()
        found.append(clock() - start)
    return found


def main() -> None:
    """Export, measure, print the record and keep it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recipe", nargs="?", default="sinet")
    parser.add_argument("--pairs", type=int, default=300)
    arguments = parser.parse_args()
    machine = to_json(this_machine())
    with tempfile.TemporaryDirectory() as place:
        (artifact,) = deploykit.export(arguments.recipe, targets=[Target.ONNX], output_dir=place)
        recipe = deploykit.load(arguments.recipe).recipe
        inputs = save_inputs(build_inputs(artifact.inputs, recipe), Path(place), "input")
        subject = {
            "name": arguments.recipe,
            "path": str(artifact.path),
            "target": "onnx",
            "threads": 1,
            "accelerator": "cpu",
            "inputs": inputs,
        }
        found = overhead(prepared(subject)(), arguments.pairs)
    record = versioned("harness-overhead", {"machine": machine, "recipe": arguments.recipe, **found})
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(record, indent=2, sort_keys=True) + "\n"
    (RESULTS / "harness_overhead.json").write_text(text, "utf-8")
    sys.stdout.write(text)
    sys.exit(1 if found["interval"][0] > LIMIT else 0)


if __name__ == "__main__":
    main()

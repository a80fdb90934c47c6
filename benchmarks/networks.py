"""All bundled networks, verified, exported and judged: the record behind docs/networks.md.

For each: verify-reparam, every target in fp32 and fp16, mean IoU of the checkpoint and of every file on the same
held-out synthetic portraits, parameters and multiply-accumulates. Nothing here is a timing.

Run: python benchmarks/networks.py [--samples N] [--network NAME ...]; takes a few minutes for each network.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import deploykit
from deploykit.evaluation.evaluate import Options
from deploykit.inspection import network_cost
from deploykit.lowering import ExportOptions
from deploykit.recipe import bundled_recipes, load_recipe
from deploykit.records import versioned
from deploykit.vocab import FLOAT_PRECISIONS, Convention

FILE = Path(__file__).parent / "results" / "networks.json"
CONVENTIONS = (Convention.MACS, Convention.CONV_MACS)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def look_at(name: str, samples: int) -> dict[str, Any]:
    network = deploykit.load(name)
    verification = deploykit.verify_reparam(network)
    if not verification.passed:
        raise SystemExit(f"{name}: verify-reparam failed")
    with tempfile.TemporaryDirectory() as folder:
        artifacts = [
            artifact
            for precision in FLOAT_PRECISIONS
            for artifact in deploykit.export(network, output_dir=folder, options=ExportOptions(precision=precision))
        ]
        say(f"{name}: {len(artifacts)} files; evaluating on {samples} portraits")
        run = deploykit.evaluate(name, *(one.path for one in artifacts), options=Options(samples=samples, clips=0))
    checkpoint, *files = run.evaluations
    cost = network_cost(name)
    return {
        "recipe": name,
        "description": network.recipe.file.description,
        "checkpoint_sha256": network.checkpoint_sha256,
        "input_size": checkpoint.input_size,
        "samples": samples,
        "parameters": cost.parameters,
        "deployed_parameters": cost.exported.cost.parameters,
        "macs": {one.value: cost.exported.cost.macs[one] for one in CONVENTIONS},
        "portrait_iou": value(checkpoint, "foreground_iou"),
        "two_class_miou": value(checkpoint, "two_class_miou"),
        "files": [
            {
                "target": artifact.plan.target.value,
                "precision": artifact.plan.precision.value,
                "size_bytes": artifact.size_bytes,
                "two_class_miou": value(file, "two_class_miou"),
                "mask_agreement": min(one.mask_agreement or 0.0 for one in artifact.comparisons),
            }
            for artifact, file in zip(artifacts, files, strict=True)
        ],
    }


def value(evaluation: Any, metric: str) -> float:
    estimate = evaluation.summary(metric).estimate
    if estimate is None:
        raise SystemExit(f"{evaluation.subject}: {metric} is undefined on every image")
    return round(estimate.value, 5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=32)
    trained = [name for name in bundled_recipes() if load_recipe(name).checkpoint_path() is not None]
    parser.add_argument("--network", choices=trained, action="append", help="default: all that have weights")
    arguments = parser.parse_args()
    for name in arguments.network or trained:
        say(f"{name}: verifying and exporting")
        measured = look_at(name, arguments.samples)
        found = {one["recipe"]: one for one in json.loads(FILE.read_text())["body"]} if FILE.exists() else {}
        found[name] = measured
        temporary = FILE.with_suffix(".tmp")
        temporary.write_text(json.dumps(versioned("networks", [found[key] for key in sorted(found)]), indent=1) + "\n")
        temporary.replace(FILE)


if __name__ == "__main__":
    main()

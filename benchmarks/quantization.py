"""What half precision and integers cost the bundled networks in masks: the record behind docs/quantization.md.

For each network and target, in each precision: the file is made, run, and judged on held-out synthetic portraits beside
the checkpoint itself; w8a8 also with a quantizer's usual settings. With --cases, the folder of the real SINet and its
two photos, its masks as w8a8 beside its own fp32 masks. Nothing here is a timing.

Run: python benchmarks/quantization.py [--network NAME ...] [--target T ...] [--precision P ...] [--cases FOLDER]
Cells that are recorded for the same checkpoint are not made again, unless --again is given.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import deploykit
from deploykit.evaluation.records import Summary
from deploykit.images.preprocess import read_image
from deploykit.lowering import MAX_DROP, ExportOptions, options_for
from deploykit.network import LoadedNetwork, load_network
from deploykit.pipeline import prepare_export
from deploykit.quantization_report import Cell, quantization_report
from deploykit.quantize.calibration import calibration_set
from deploykit.quantize.file import outputs_of
from deploykit.recipe import bundled_recipes, load_recipe
from deploykit.records import to_json, versioned
from deploykit.targets.schemes import Impossible, scheme
from deploykit.verify.contract import classes_in
from deploykit.verify.reference import reference_outputs
from deploykit.verify.samples import draw_samples, picture_sample
from deploykit.vocab import Precision, Target

FILE = Path(__file__).parent / "results" / "quantization.json"
METRICS = ("two_class_miou", "boundary_f1", "edge_iou", "flicker")
MAIN = (Precision.FP16, Precision.INT8)
KEY = ("network", "target", "precision", "defaults")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def look_at(network: LoadedNetwork, target: Target, precision: Precision, samples: int) -> list[dict[str, Any]]:
    started = time.process_time()
    found = quantization_report(
        network,
        calibration_set(network.recipe),
        targets=(target,),
        precisions=(precision,),
        held_out=samples,
        runs=1,
        seconds=0,
        step=say,
    )
    say(f"{time.process_time() - started:.0f} s of CPU")
    return [row(one, found.recipe, found.checkpoint_sha256, found.checkpoint, samples) for one in found.cells]


def row(cell: Cell, network: str, checkpoint: str, own: tuple[Summary, ...], samples: int) -> dict[str, Any]:
    figures = cell.figures
    made = figures.quantization if figures else None
    return {
        "network": network,
        "target": cell.target.value,
        "precision": cell.precision.value,
        "defaults": cell.defaults,
        "checkpoint_sha256": checkpoint,
        "samples": samples,
        "max_drop": None if cell.defaults else MAX_DROP,
        "state": cell.state.value,
        "reason": cell.reason,
        "checkpoint": {one.metric: value(one) for one in own if one.metric in METRICS},
        "points": {} if figures is None else {one.metric: points(one) for one in figures.summaries},
        "size_bytes": figures.size_bytes if figures else None,
        "weight_bytes": figures.weight_bytes if figures else None,
        "weight_share": round(figures.weight_share, 4) if figures else None,
        "content_hash": figures.content_hash if figures else None,
        "layers": made.layers if made else None,
        "kept": len(made.kept) if made else None,
        "estimator": to_json(made.estimator) if made else None,
        "equalization": made.equalization if made else None,
    }


def value(summary: Summary) -> float | None:
    return None if summary.estimate is None else round(summary.estimate.value, 5)


def points(summary: Summary) -> float | None:
    """Return the difference to the checkpoint in hundredths."""
    return None if summary.difference is None else round(100 * summary.difference.value, 3)


def real(cases: Path, target: Target) -> dict[str, Any]:
    """Return the IoU of the real SINet's w8a8 masks with its own fp32 masks, photo by photo."""
    (checkpoint,) = (cases / "sinet_clovaai").glob("*.pth")
    network = deploykit.load(checkpoint=checkpoint)
    calibration = calibration_set(network.recipe)
    recipe = network.recipe
    (output,) = recipe.deployed()
    plain = ExportOptions(precision=Precision.INT8, calibration=calibration.record.sha256, max_drop=MAX_DROP)
    options = options_for(target, plain, alone=True)
    photos = [cases / "images" / name for name in ("astronaut.png", "tfjs_portrait.jpg")]
    samples = [picture_sample(recipe, read_image(photo)) for photo in photos]
    exact = [one[output.name] for one in reference_outputs(network.module, recipe, samples)]
    with tempfile.TemporaryDirectory() as folder:
        exporter = prepare_export(network, draw_samples(recipe))
        artifact = exporter.write(target, options, Path(folder), calibration=calibration, step=say)
        found = [one[output.name] for one in outputs_of(artifact.path, artifact.plan, recipe, samples)]
    kind = artifact.plan.output_kind
    made = artifact.quantization
    assert made is not None
    return {
        "target": target.value,
        "checkpoint_sha256": network.checkpoint_sha256,
        "max_drop": MAX_DROP,
        "iou": {
            photo.name: round(iou(classes_in(a, kind), classes_in(b, kind)), 4)
            for photo, a, b in zip(photos, found, exact, strict=True)
        },
        "layers": made.layers,
        "kept": len(made.kept),
        "weight_share": round(made.weight_bytes / made.float_weight_bytes, 4),
        "content_hash": artifact.content_hash,
    }


def iou(found: np.ndarray, expected: np.ndarray) -> float:
    a, b = found > 0, expected > 0
    return float((a & b).sum() / (a | b).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    trained = [name for name in bundled_recipes() if load_recipe(name).checkpoint_path() is not None]
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--network", choices=trained, action="append", help="default: all that have weights")
    parser.add_argument("--target", choices=list(Target), action="append", help="default: all")
    parser.add_argument("--precision", choices=list(Precision), action="append", help="default: fp16 and int8")
    parser.add_argument("--cases", type=Path, help="the real SINet and its photos; only these are measured")
    parser.add_argument("--again", action="store_true", help="measure recorded cells anew")
    arguments = parser.parse_args()
    known: dict[str, Any] = json.loads(FILE.read_text())["body"] if FILE.exists() else {"cells": [], "photos": []}
    targets = [Target(one) for one in arguments.target or Target]
    if arguments.cases:
        for target in targets:
            measured = real(arguments.cases, target)
            known["photos"] = [one for one in known["photos"] if one["target"] != target.value] + [measured]
            write(known)
        return
    for target in targets:
        for name in arguments.network or trained:
            network = load_network(load_recipe(name))
            for precision in [Precision(one) for one in arguments.precision or MAIN]:
                if isinstance(scheme(target, precision), Impossible):
                    continue
                wanted = (name, target.value, precision.value, network.checkpoint_sha256)
                done = {tuple(one[key] for key in (*KEY[:3], "checkpoint_sha256")) for one in known["cells"]}
                if wanted in done and not arguments.again:
                    continue
                say(f"{name}, {target}, {precision}")
                new = look_at(network, target, precision, arguments.samples)
                places = {tuple(one[key] for key in KEY) for one in new}
                known["cells"] = [one for one in known["cells"] if tuple(one[key] for key in KEY) not in places] + new
                write(known)


def write(known: dict[str, Any]) -> None:
    known["cells"].sort(key=lambda one: tuple(str(one[key]) for key in KEY))
    known["photos"].sort(key=lambda one: str(one["target"]))
    temporary = FILE.with_suffix(".tmp")
    temporary.write_text(json.dumps(versioned("quantization", known), indent=1) + "\n")
    temporary.replace(FILE)


if __name__ == "__main__":
    main()

"""``python -m deploykit.training``: trains the bundled checkpoints and writes their manifest."""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from deploykit.errors import ImageError
from deploykit.images.synthetic import GENERATOR_VERSION
from deploykit.training.corpus import Pixels, render
from deploykit.training.loop import train
from deploykit.training.manifest import Entry, update_manifest
from deploykit.training.plan import HELD_OUT_SEEDS, PLANS, TRAIN_SEEDS, TrainingPlan
from deploykit.training.score import photo_iou, score

QUICK_LOOK = 32


def _say(text: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()


def _read(path: Path) -> Pixels:
    image = cv2.imread(str(path))
    if image is None:
        raise ImageError("a photo for the score cannot be read", where=str(path))
    return np.asarray(image, np.uint8)


def _photo_scores(network: nn.Module, plan: TrainingPlan, folder: Path | None) -> dict[str, float]:
    if folder is None:
        return {}
    pairs = {
        "astronaut": ("images/astronaut.png", "golden_sinet/clovaai_astronaut_224_mask.png"),
        "tfjs_portrait": ("images/tfjs_portrait.jpg", "images/tfjs_portrait_segmentation.png"),
    }
    scores = {}
    for name, (photo_path, mask_path) in pairs.items():
        photo = np.ascontiguousarray(_read(folder / photo_path)[:, :, ::-1])
        # Both masks mark the person in the blue channel: white on black, and blue on red.
        person = _read(folder / mask_path)[:, :, 0] > 127
        scores[name] = photo_iou(network, plan, photo, person)
    return scores


def _finish(plan: TrainingPlan, folder: Path, cache: Path, photos: Path | None, threads: int) -> None:
    path = folder / f"{plan.network}.pt"
    network = plan.factory().eval()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    held_out = score(network, plan, render(HELD_OUT_SEEDS, cache))
    entry = Entry(
        network=plan.network,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        generator_version=GENERATOR_VERSION,
        train_seeds=(TRAIN_SEEDS.start, TRAIN_SEEDS.stop - 1),
        held_out_seeds=(HELD_OUT_SEEDS.start, HELD_OUT_SEEDS.stop - 1),
        seed=plan.seed,
        command=f"python -m deploykit.training --network {plan.network} --threads {threads}",
        torch_version=torch.__version__,
        held_out_foreground_iou=held_out.foreground_iou,
        held_out_two_class_miou=held_out.two_class_miou,
        photo_ious=_photo_scores(network, plan, photos),
    )
    update_manifest(folder / "manifest.toml", entry)
    _say(f"{plan.network}: {held_out}, photos {entry.photo_ious}")


def _train_one(plan: TrainingPlan, folder: Path, cache: Path) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    portraits = render(TRAIN_SEEDS, cache)
    look = render(HELD_OUT_SEEDS, cache)[:QUICK_LOOK]

    def report(step: int, steps: int, loss: float, average: nn.Module) -> None:
        torch.save(average.state_dict(), cache / f"{plan.network}-latest.pt")
        found = score(average, plan, look).foreground_iou
        _say(f"{plan.network} {step}/{steps} loss {loss:.4f} held-out IoU at full size {found:.4f}")

    state = train(plan, portraits, device, report)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(state, folder / f"{plan.network}.pt")


def main() -> None:
    """Train the named networks, or all, and score and describe each in the manifest."""
    parser = argparse.ArgumentParser(prog="python -m deploykit.training", description=__doc__)
    parser.add_argument("--network", choices=sorted(PLANS), action="append", help="default: all")
    parser.add_argument("--output-dir", "-o", type=Path, default=Path("checkpoints"))
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "deploykit-portraits")
    parser.add_argument("--photos", type=Path, help="folder with images/ and golden_sinet/, to score real photos")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--score-only", action="store_true", help="describe the checkpoints that are there")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(1)
    for name in arguments.network or sorted(PLANS):
        plan = PLANS[name]
        if not arguments.score_only:
            _train_one(plan, arguments.output_dir, arguments.cache)
        _finish(plan, arguments.output_dir, arguments.cache, arguments.photos, arguments.threads)


if __name__ == "__main__":
    main()

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

from deploykit.errors import CheckpointError, ImageError
from deploykit.evaluation.dataset import HELD_OUT_SEEDS
from deploykit.images.synthetic import GENERATOR_VERSION
from deploykit.network import build_network
from deploykit.training.corpus import Pixels, render
from deploykit.training.loop import train
from deploykit.training.manifest import Entry, update_manifest
from deploykit.training.plan import (
    IMAGE_SIZE,
    LARGE_IMAGE_SIZE,
    LARGE_TRAIN_SEEDS,
    PLANS,
    TRAIN_SEEDS,
    TrainingPlan,
)
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
    path = folder / f"{plan.recipe}.pt"
    network = build_network(plan.loaded)
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    held_out = score(network, plan, render(HELD_OUT_SEEDS, cache, plan.image.height))
    entry = Entry(
        recipe=plan.recipe,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        generator_version=GENERATOR_VERSION,
        train_seeds=(TRAIN_SEEDS.start, TRAIN_SEEDS.stop - 1),
        held_out_seeds=(HELD_OUT_SEEDS.start, HELD_OUT_SEEDS.stop - 1),
        seed=plan.seed,
        loss=repr(plan.objective),
        command=f"python -m deploykit.training --network {plan.recipe} --threads {threads}",
        torch_version=torch.__version__,
        input_size=(plan.image.height, plan.image.width),
        held_out_foreground_iou=held_out.foreground_iou,
        held_out_two_class_miou=held_out.two_class_miou,
        photo_ious=_photo_scores(network, plan, photos),
    )
    update_manifest(folder / "manifest.toml", entry)
    _say(f"{plan.recipe}: {held_out}, photos {entry.photo_ious}")


def starting_network(plan: TrainingPlan, folder: Path) -> nn.Module:
    """Return the network that training begins with: fresh, or with the weights that ``plan`` starts from.

    Raises CheckpointError where those are not in ``folder``.
    """
    network = build_network(plan.loaded)
    if plan.start_from is None:
        return network
    path = folder / f"{plan.start_from}.pt"
    if not path.is_file():
        raise CheckpointError(
            f"{plan.recipe} begins with the weights of {plan.start_from}, which are not there.",
            where=str(path),
            next_step=f"train it first: python -m deploykit.training --network {plan.start_from}",
        )
    trained = torch.load(path, map_location="cpu", weights_only=True)
    network.load_state_dict({name: _widened(trained[name], fresh) for name, fresh in network.state_dict().items()})
    return network


def _widened(trained: torch.Tensor, fresh: torch.Tensor) -> torch.Tensor:
    """Return ``trained`` with zeros for the input channels (axis 1) that only ``fresh`` has."""
    if trained.ndim < 2 or trained.shape[1] == fresh.shape[1]:
        return trained
    missing = torch.zeros_like(fresh[:, trained.shape[1] :])
    return torch.cat([trained, missing], dim=1)


def _train_one(plan: TrainingPlan, folder: Path, cache: Path) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    portraits = {IMAGE_SIZE: render(TRAIN_SEEDS, cache, IMAGE_SIZE)}
    if plan.needs_large_portraits:
        portraits[LARGE_IMAGE_SIZE] = render(LARGE_TRAIN_SEEDS, cache, LARGE_IMAGE_SIZE)
    look = render(HELD_OUT_SEEDS, cache, plan.image.height)[:QUICK_LOOK]

    def report(step: int, steps: int, loss: float, average: nn.Module) -> None:
        torch.save(average.state_dict(), cache / f"{plan.recipe}-latest.pt")
        found = score(average, plan, look).foreground_iou
        _say(f"{plan.recipe} {step}/{steps} loss {loss:.4f} held-out IoU at full size {found:.4f}")

    state = train(starting_network(plan, folder), plan, portraits, device, report)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{plan.recipe}.pt"
    torch.save(state, path.with_suffix(".partial"))
    path.with_suffix(".partial").replace(path)


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
    # Optimiser states that fade out would otherwise slow a CPU down by an order of magnitude.
    torch.set_flush_denormal(True)
    cv2.setNumThreads(1)
    for name in arguments.network or PLANS:
        plan = PLANS[name]
        if not arguments.score_only:
            _train_one(plan, arguments.output_dir, arguments.cache)
        _finish(plan, arguments.output_dir, arguments.cache, arguments.photos, arguments.threads)


if __name__ == "__main__":
    main()

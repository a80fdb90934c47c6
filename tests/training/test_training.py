from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from deploykit.training.corpus import augment, render
from deploykit.training.loop import normalise, train
from deploykit.training.losses import boundary, segmentation_loss
from deploykit.training.manifest import Entry, read_manifest, update_manifest
from deploykit.training.plan import IMAGE_SIZE, PLANS, Phase, TrainingPlan
from deploykit.training.score import iou, score


class Small(nn.Module):
    """A network with an edge head that learns bright from dark in a few steps."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.mask = nn.Conv2d(8, 2, 1)
        self.edge = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(8, 2, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.body(x)
        return self.mask(y), self.edge(y)


@pytest.fixture(scope="module")
def squares() -> np.ndarray:
    """Bright squares on a dark ground, and their masks."""
    rng = np.random.default_rng(0)
    portraits = np.zeros((6, IMAGE_SIZE, IMAGE_SIZE, 4), np.uint8)
    for portrait in portraits:
        x, y = rng.integers(40, 100, 2)
        portrait[:, :, :3] = rng.integers(20, 60)
        portrait[y : y + 90, x : x + 90] = [220, 210, 200, 1]
    return portraits


@pytest.fixture
def plan() -> TrainingPlan:
    return dataclasses.replace(
        PLANS["rcrnet"], network="small", factory=Small, phases=(Phase(32, 40), Phase(48, 20)), batch=4
    )


def run(plan: TrainingPlan, squares: np.ndarray) -> tuple[dict[str, Tensor], list[float]]:
    losses: list[float] = []
    device = torch.device("cpu")
    return train(plan, squares, device, lambda _step, _steps, loss, _net: losses.append(loss)), losses


def test_training_learns_and_is_decided_by_its_seed(plan: TrainingPlan, squares: np.ndarray) -> None:
    first, losses = run(plan, squares)
    again, _ = run(plan, squares)
    other, _ = run(dataclasses.replace(plan, seed=plan.seed + 1), squares)
    assert len(losses) == 1, "a short run reports at its end"
    assert first.keys() == Small().state_dict().keys()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["mask.weight"], other["mask.weight"])
    network = Small().eval()
    network.load_state_dict(first)
    assert score(network, plan, squares).foreground_iou > 0.9


def test_untrained_network_scores_badly(plan: TrainingPlan, squares: np.ndarray) -> None:
    torch.manual_seed(0)
    assert score(Small().eval(), plan, squares).foreground_iou < 0.9


def test_augmentation_moves_image_and_mask_together(squares: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    overlaps, moved = [], []
    for _ in range(20):
        image, mask = augment(squares[0], 96, rng)
        assert image.shape == (96, 96, 3)
        assert image.dtype == np.float32
        assert mask.shape == (96, 96)
        gray = image.mean(axis=2)
        overlaps.append(iou(gray > (gray.min() + gray.max()) / 2, mask > 0))
        still = cv2.resize(squares[0][:, :, 3], (96, 96), interpolation=cv2.INTER_NEAREST)
        moved.append(iou(still > 0, mask > 0))
    assert min(overlaps) > 0.9
    assert np.mean(moved) < 0.9, "nothing was moved"


def test_boundary_is_where_a_square_holds_both_classes() -> None:
    mask = torch.zeros(1, 7, 7)
    mask[:, :, 4:] = 1
    assert boundary(mask, 3)[0, 3].tolist() == [0, 0, 0, 1, 1, 0, 0]
    assert boundary(mask, 5)[0, 3].tolist() == [0, 0, 1, 1, 1, 1, 0]


def test_loss_counts_mask_and_edge_head() -> None:
    mask = torch.zeros(1, 16, 16, dtype=torch.long)
    mask[:, 4:12, 4:12] = 1
    right = nn.functional.one_hot(mask, 2).permute(0, 3, 1, 2).float() * 20 - 10
    edges = nn.functional.max_pool2d(boundary(mask, 3)[:, None], 2)[:, 0].long()
    right_edges = nn.functional.one_hot(edges, 2).permute(0, 3, 1, 2).float() * 20 - 10
    assert segmentation_loss(right, mask) < 1e-3
    assert segmentation_loss(-right, mask) > 1
    assert segmentation_loss((right, right_edges), mask) < 1e-3
    assert segmentation_loss((right, -right_edges), mask) > 1


def test_sinet_sees_what_its_authors_network_saw(shared_cases: Path) -> None:
    expected = np.load(shared_cases / "golden_sinet" / "clovaai_astronaut_224.npz")["x"]
    photo = cv2.resize(cv2.imread(str(shared_cases / "images" / "astronaut.png")), (224, 224))
    rgb = torch.from_numpy(np.ascontiguousarray(photo[:, :, ::-1])).float().permute(2, 0, 1)[None]
    found = normalise(rgb, PLANS["sinet"]).numpy()
    assert np.abs(found - expected).max() <= 1e-6
    swapped = normalise(rgb.flip(1), PLANS["sinet"]).numpy()
    assert np.abs(swapped - expected).max() > 1e-6


def test_score_is_the_mean_over_images() -> None:
    class Left(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.anchor = nn.Parameter(torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            logits = torch.zeros(1, 2, *x.shape[2:])
            logits[:, 1, :, : x.shape[3] // 2] = 1
            return logits

    portraits = np.zeros((2, 8, 8, 4), np.uint8)
    portraits[0, :, :4, 3] = 1
    portraits[1, :, :2, 3] = 1
    found = score(Left(), PLANS["rcrnet"], portraits)
    assert found.images == 2
    assert found.foreground_iou == pytest.approx((1 + 0.5) / 2)
    assert found.two_class_miou == pytest.approx((1 + (0.5 + 4 / 6) / 2) / 2)


def test_iou_of_two_empty_masks_is_one() -> None:
    empty = np.zeros((4, 4), bool)
    assert iou(empty, empty) == 1
    assert iou(empty, ~empty) == 0


def test_portraits_are_rendered_once(tmp_path: Path) -> None:
    first = render(range(3), tmp_path)
    (made,) = tmp_path.iterdir()
    written = made.stat().st_mtime_ns
    again = render(range(3), tmp_path)
    assert first.shape == (3, IMAGE_SIZE, IMAGE_SIZE, 4)
    assert np.array_equal(first, again)
    assert made.stat().st_mtime_ns == written


def test_manifest_keeps_the_other_entries(tmp_path: Path) -> None:
    path = tmp_path / "manifest.toml"
    entry = Entry(
        network="one", sha256="ab", generator_version=1, train_seeds=(0, 9), held_out_seeds=(10, 12), seed=1,
        command="python -m deploykit.training", torch_version="2", held_out_foreground_iou=0.95123,
        held_out_two_class_miou=0.96, photo_ious={"astronaut": 0.9},
    )  # fmt: skip
    update_manifest(path, entry)
    update_manifest(path, dataclasses.replace(entry, network="two", photo_ious={}))
    update_manifest(path, dataclasses.replace(entry, sha256="cd"))
    found = read_manifest(path)
    assert sorted(found) == ["one.pt", "two.pt"]
    assert found["one.pt"]["sha256"] == "cd"
    assert found["one.pt"]["held_out_foreground_iou"] == 0.9512
    assert found["one.pt"]["train_seeds"] == [0, 9]
    assert found["one.pt"]["photo_ious"] == {"astronaut": 0.9}
    assert found["two.pt"]["photo_ious"] == {}


@pytest.mark.parametrize("name", sorted(PLANS))
def test_training_sees_what_the_recipe_says(name):
    """A checkpoint trained with another preprocessing than its recipe's would be wrong on every photo."""
    from deploykit.recipe import load_recipe

    plan = PLANS[name]
    (image,) = load_recipe(name).file.inputs
    assert image.color_order is plan.color
    assert image.mean == pytest.approx(plan.mean, rel=1e-9)
    assert [1 / value for value in image.scale] == pytest.approx(plan.std, rel=1e-9)

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from deploykit.errors import CheckpointError
from deploykit.network import build_network
from deploykit.training.__main__ import starting_network
from deploykit.training.corpus import render
from deploykit.training.loop import normalise, train
from deploykit.training.manifest import Entry, read_manifest, update_manifest
from deploykit.training.plan import IMAGE_SIZE, PLANS, Phase, TrainingPlan
from deploykit.training.score import iou, predict, score


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
    return dataclasses.replace(PLANS["rcrnet"], phases=(Phase(32, 40, batch=4), Phase(48, 20, batch=4)), polish=())


def run(plan: TrainingPlan, squares: np.ndarray) -> tuple[dict[str, Tensor], list[float]]:
    losses: list[float] = []
    torch.manual_seed(plan.seed)
    portraits = {IMAGE_SIZE: squares}
    state = train(Small(), plan, portraits, torch.device("cpu"), lambda _step, _steps, loss, _net: losses.append(loss))
    return state, losses


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


def test_polishing_goes_on_from_the_averaged_weights(plan: TrainingPlan, squares: np.ndarray) -> None:
    short = dataclasses.replace(plan, phases=(Phase(32, 3, batch=2),), restarts=True)
    polished = dataclasses.replace(short, polish=((Phase(32, 1, batch=2),), (Phase(48, 2, batch=2),)))
    first, losses = run(short, squares)
    last, more = run(polished, squares)
    assert (len(losses), len(more)) == (1, 3), "each stage reports at its end"
    assert more[0] == losses[0]
    assert not torch.equal(first["mask.weight"], last["mask.weight"])


def test_untrained_network_scores_badly(plan: TrainingPlan, squares: np.ndarray) -> None:
    torch.manual_seed(0)
    assert score(Small().eval(), plan, squares).foreground_iou < 0.9


def test_each_phase_takes_the_smallest_portraits_that_are_large_enough(
    plan: TrainingPlan, squares: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deploykit.training import loop

    seen = []

    def noting(portrait, size, rng, ranges):
        seen.append((size, portrait.shape[0]))
        return augment(portrait, size, rng, ranges)

    augment = loop.augment
    monkeypatch.setattr(loop, "augment", noting)
    phases = (Phase(16, 1, batch=2), Phase(32, 1, batch=2), Phase(48, 1, batch=2))
    small = np.ascontiguousarray(squares[:, ::7, ::7])
    train(
        Small(),
        dataclasses.replace(plan, phases=phases),
        {32: small, IMAGE_SIZE: squares},
        torch.device("cpu"),
        lambda *_: None,
    )
    assert dict(seen) == {16: 32, 32: 32, 48: IMAGE_SIZE}


@pytest.mark.parametrize("name", sorted(PLANS))
def test_every_network_takes_a_training_step_with_its_own_loss(name: str, squares: np.ndarray) -> None:
    plan = dataclasses.replace(PLANS[name], phases=(Phase(64, 2, batch=2),), polish=())
    network = build_network(plan.loaded)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    losses: list[float] = []
    train(network, plan, {IMAGE_SIZE: squares}, torch.device("cpu"), lambda _a, _b, loss, _n: losses.append(loss))
    assert np.isfinite(losses).all()
    still = [key for key, _ in network.named_parameters() if torch.equal(before[key], network.state_dict()[key])]
    assert not still, "no gradient reaches these"


def test_video_begins_with_the_image_networks_weights(tmp_path: Path) -> None:
    plan = PLANS["rcrnet-video"]
    trained = build_network(PLANS["rcrnet"].loaded)
    torch.save(trained.state_dict(), tmp_path / "rcrnet.pt")
    network = starting_network(plan, tmp_path).eval()
    image, prior = torch.rand(1, 3, 64, 64), torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        found, expected = network(image, prior), trained.eval()(image)
    assert torch.allclose(found[0], expected[0], atol=1e-5), "a new channel starts without influence"


def test_a_missing_start_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"rcrnet-video begins with the weights of rcrnet"):
        starting_network(PLANS["rcrnet-video"], tmp_path)


def test_the_first_frame_of_a_video_has_an_empty_prior() -> None:
    seen = []

    class Video(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.anchor = nn.Parameter(torch.zeros(1))

        def forward(self, image: Tensor, prior: Tensor) -> Tensor:
            seen.append((tuple(prior.shape), float(prior.abs().sum())))
            return torch.zeros(1, 2, *image.shape[2:])

    predict(Video(), PLANS["rcrnet-video"], np.zeros((8, 8, 3), np.uint8))
    assert seen == [((1, 1, 8, 8), 0.0)]


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
    first = render(range(3), tmp_path, 64)
    (made,) = tmp_path.iterdir()
    written = made.stat().st_mtime_ns
    again = render(range(3), tmp_path, 64)
    assert first.shape == (3, 64, 64, 4)
    assert np.array_equal(first, again)
    assert made.stat().st_mtime_ns == written


def test_manifest_keeps_the_other_entries(tmp_path: Path) -> None:
    path = tmp_path / "manifest.toml"
    entry = Entry(
        recipe="one",
        sha256="ab",
        generator_version=1,
        train_seeds=(0, 9),
        held_out_seeds=(10, 12),
        seed=1,
        loss="CE",
        command="python -m deploykit.training",
        torch_version="2",
        input_size=(224, 224),
        held_out_foreground_iou=0.95123,
        held_out_two_class_miou=0.96,
        photo_ious={"astronaut": 0.9},
    )
    update_manifest(path, entry)
    update_manifest(path, dataclasses.replace(entry, recipe="two", photo_ious={}))
    update_manifest(path, dataclasses.replace(entry, sha256="cd"))
    found = read_manifest(path)
    assert sorted(found) == ["one.pt", "two.pt"]
    assert found["one.pt"]["sha256"] == "cd"
    assert found["one.pt"]["held_out_foreground_iou"] == 0.9512
    assert found["one.pt"]["train_seeds"] == [0, 9]
    assert found["one.pt"]["photo_ious"] == {"astronaut": 0.9}
    assert found["two.pt"]["photo_ious"] == {}

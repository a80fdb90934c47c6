"""How each bundled checkpoint is trained: literal tables, one row per network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from deploykit.recipe import Input, Recipe, load_recipe
from deploykit.training.augmentation import PORTRAITNET, Ranges
from deploykit.training.losses import LOSSES, Objective

TRAIN_SEEDS = range(100_000, 110_000)
# The large portraits serve the last phases alone, which see each of them about once.
LARGE_TRAIN_SEEDS = TRAIN_SEEDS[:3000]
IMAGE_SIZE = 224
LARGE_IMAGE_SIZE = 512
# The papers turn by 45 degrees and scale by a half for 2000 epochs on photos; these portraits stand upright, and a
# training of half an hour on one CPU thread has no time for what they never show.
UPRIGHT = replace(PORTRAITNET, rotation=(-15.0, 15.0), resizing=(0.75, 1.3), translation=(-0.1, 0.1))


@dataclass(frozen=True)
class Phase:
    """``steps`` optimiser steps on ``batch`` square pictures of ``size`` pixels."""

    size: int
    steps: int
    batch: int = 16


@dataclass(frozen=True)
class TrainingPlan:
    """Everything that decides a checkpoint besides the portraits and the versions of torch and the generator.

    ``recipe`` names the network, its preprocessing and its input size; the loss is that of the network's paper.
    ``start_from`` is the recipe whose trained checkpoint this one begins with, or None for fresh weights. A network
    that is trained on two views of each image costs twice the time of a step. With ``restarts`` each phase has a rate
    cycle of its own, with half the peak of the one before: a much larger picture size needs a rate to adapt at.
    Each of ``polish`` follows as a training of its own, from the averaged weights and with half the peak of the last.
    """

    recipe: str
    phases: tuple[Phase, ...]
    peak_rate: float
    weight_decay: float
    seed: int
    start_from: str | None = None
    restarts: bool = False
    polish: tuple[tuple[Phase, ...], ...] = ()
    ranges: Ranges = UPRIGHT

    @cached_property
    def loaded(self) -> Recipe:
        """The recipe itself."""
        return load_recipe(self.recipe)

    @property
    def image(self) -> Input:
        """The recipe's image input: size, colour order, mean and scale."""
        return next(item for item in self.loaded.file.inputs if item.kind == "image")

    @property
    def has_prior(self) -> bool:
        """Whether the network also takes the mask of the frame before."""
        return len(self.loaded.file.inputs) > 1

    @property
    def objective(self) -> Objective:
        """What training minimises: the loss of the network's paper."""
        return LOSSES[self.loaded.file.network.factory]

    @property
    def needs_large_portraits(self) -> bool:
        """Whether a phase sees pictures larger than the small portraits."""
        return any(phase.size > IMAGE_SIZE for phase in self.phases)


PLANS = {
    plan.recipe: plan
    for plan in (
        TrainingPlan(
            recipe="sinet",
            phases=(Phase(96, 1600), Phase(160, 500), Phase(224, 450)),
            polish=((Phase(224, 350),),),
            peak_rate=4e-3,
            weight_decay=1e-4,
            seed=1,
        ),
        TrainingPlan(
            recipe="rcrnet",
            phases=(Phase(96, 1100, batch=12), Phase(160, 320, batch=8), Phase(224, 300, batch=8)),
            polish=((Phase(224, 300, batch=8),),),
            peak_rate=3e-3,
            weight_decay=1e-4,
            seed=2,
        ),
        TrainingPlan(
            recipe="rcrnet-video",
            phases=(Phase(160, 120, batch=8), Phase(224, 130, batch=8)),
            peak_rate=1e-3,
            weight_decay=1e-4,
            seed=3,
            start_from="rcrnet",
        ),
        TrainingPlan(
            recipe="portraitnet",
            phases=(Phase(96, 1400, batch=12), Phase(160, 450, batch=8), Phase(224, 350, batch=8)),
            polish=((Phase(224, 220, batch=8),),),
            peak_rate=3e-3,
            weight_decay=1e-4,
            seed=4,
        ),
        TrainingPlan(
            recipe="mobilenetv3-sappm",
            phases=(Phase(128, 800), Phase(256, 450, batch=12), Phase(512, 220, batch=6)),
            restarts=True,
            polish=((Phase(512, 200, batch=6),),),
            peak_rate=3e-3,
            weight_decay=1e-4,
            seed=5,
        ),
        TrainingPlan(
            recipe="elb",
            phases=(Phase(128, 700), Phase(256, 350, batch=8), Phase(512, 180, batch=4)),
            restarts=True,
            polish=(
                (Phase(256, 300, batch=8), Phase(512, 300, batch=4)),
                (Phase(512, 250, batch=4),),
                (Phase(512, 250, batch=4),),
            ),
            peak_rate=2e-3,
            weight_decay=1e-4,
            seed=6,
        ),
    )
}

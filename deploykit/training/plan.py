"""How each bundled checkpoint is trained: literal tables, one row per network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from deploykit.models.rcrnet import RCRNet
from deploykit.models.sinet import SINet
from deploykit.vocab import ColorOrder

TRAIN_SEEDS = range(100_000, 110_000)
HELD_OUT_SEEDS = range(900_000, 900_128)
IMAGE_SIZE = 224


@dataclass(frozen=True)
class Phase:
    """``steps`` optimiser steps on square crops of ``size`` pixels."""

    size: int
    steps: int


@dataclass(frozen=True)
class TrainingPlan:
    """Everything that decides a checkpoint besides the portraits and the versions of torch and the generator.

    ``mean`` and ``std`` are in the units of 8-bit pixels and in ``color`` order: the network sees
    ``(pixel - mean) / std``. ``bfloat16_from`` is the size from which a CPU computes in bfloat16, or None.
    """

    network: str
    factory: Callable[[], nn.Module]
    color: ColorOrder
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    phases: tuple[Phase, ...]
    batch: int
    peak_rate: float
    weight_decay: float
    bfloat16_from: int | None
    seed: int


PLANS = {
    "sinet": TrainingPlan(
        network="sinet",
        factory=SINet,
        color=ColorOrder.BGR,
        mean=(102.890434, 111.25247, 126.91212),
        # The authors' code divides by the deviation and then by 255 once more.
        std=(62.93292 * 255, 62.82138 * 255, 66.355705 * 255),
        phases=(Phase(96, 2500), Phase(160, 1000), Phase(224, 900)),
        batch=16,
        peak_rate=4e-3,
        weight_decay=1e-4,
        bfloat16_from=None,
        seed=1,
    ),
    "rcrnet": TrainingPlan(
        network="rcrnet",
        factory=RCRNet,
        color=ColorOrder.RGB,
        mean=(123.675, 116.28, 103.53),
        std=(58.395, 57.12, 57.375),
        phases=(Phase(96, 1800), Phase(160, 600), Phase(224, 600)),
        batch=16,
        peak_rate=3e-3,
        weight_decay=1e-4,
        bfloat16_from=160,
        seed=2,
    ),
}

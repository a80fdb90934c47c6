"""The one training loop: growing image sizes, AdamW on one rate cycle, a moving average of the weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from deploykit.training.augmentation import augment
from deploykit.training.corpus import Pixels
from deploykit.training.losses import Targets
from deploykit.training.plan import Phase, TrainingPlan
from deploykit.training.priors import fake_prior
from deploykit.vocab import ColorOrder

# The average looks back over about 1 / (1 - decay) steps.
AVERAGE_DECAY = 0.995
WARM_UP_SHARE = 0.06
REPORT_EVERY = 250
RESTART_FACTOR = 0.5

Report = Callable[[int, int, float, nn.Module], None]


@dataclass(frozen=True)
class Batch:
    """Network inputs of the deformed and of the textured view of the same images, and what both should give."""

    deformed: tuple[Tensor, ...]
    textured: tuple[Tensor, ...]
    targets: Targets


def normalise(images: Tensor, plan: TrainingPlan) -> Tensor:
    """Return RGB ``images`` (N, 3, H, W) of 0..255 as the network's input."""
    if plan.image.color_order is ColorOrder.BGR:
        images = images.flip(1)
    mean = torch.tensor(plan.image.mean, device=images.device).view(1, -1, 1, 1)
    scale = torch.tensor(plan.image.scale, device=images.device).view(1, -1, 1, 1)
    return (images - mean) * scale


def _batch(
    portraits: Pixels, plan: TrainingPlan, phase: Phase, rng: np.random.Generator, device: torch.device
) -> Batch:
    chosen = rng.integers(len(portraits), size=phase.batch)
    found = [augment(portraits[index], phase.size, rng, plan.ranges) for index in chosen]

    def images(views: list[np.ndarray]) -> Tensor:
        # The permuted view is channels-last, the faster layout for depthwise convolutions on a CPU.
        return normalise(torch.from_numpy(np.stack(views)).to(device).permute(0, 3, 1, 2), plan)

    prior: tuple[Tensor, ...] = ()
    if plan.has_prior:
        prior = (torch.from_numpy(np.stack([fake_prior(one.mask, rng) for one in found])).to(device)[:, None],)
    return Batch(
        deformed=(images([one.deformed for one in found]), *prior),
        textured=(images([one.textured for one in found]), *prior),
        targets=Targets(torch.from_numpy(np.stack([one.mask for one in found])).to(device).long()),
    )


def _loss(network: nn.Module, plan: TrainingPlan, batch: Batch) -> Tensor:
    objective = plan.objective
    clean = None if objective.views is None else _outputs(network, batch.deformed)
    return objective(_outputs(network, batch.textured), batch.targets, clean)


def _outputs(network: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    found = network(*inputs)
    return found if isinstance(found, tuple) else (found,)


def _average(average: nn.Module, network: nn.Module, decay: float) -> None:
    with torch.no_grad():
        for kept, new in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
            if kept.is_floating_point():
                kept.lerp_(new, 1 - decay)
            else:
                kept.copy_(new)


def _cycle(optimizer: torch.optim.Optimizer, peak: float, steps: int) -> torch.optim.lr_scheduler.OneCycleLR:
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, steps, pct_start=WARM_UP_SHARE)


def train(
    network: nn.Module, plan: TrainingPlan, portraits: Mapping[int, Pixels], device: torch.device, report: Report
) -> dict[str, Tensor]:
    """Return the state dict, float32 on the CPU, that ``network`` reaches by ``plan``; the network is trained in place.

    ``portraits`` are (n, size, size, 4), RGB and mask, by their size; each phase takes the smallest that is large
    enough. ``report(step, steps, loss, average)`` is called now and then with the averaged network in eval mode.
    Seeds the global generator of torch.
    """
    torch.manual_seed(plan.seed)
    network = network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    rng = np.random.default_rng(plan.seed)
    average = _train(network, plan, plan.phases, plan.peak_rate, portraits=portraits, rng=rng, report=report)
    for stage, phases in enumerate(plan.polish, start=1):
        network.load_state_dict(average.state_dict())
        rng = np.random.default_rng([plan.seed, stage])
        rate = plan.peak_rate * RESTART_FACTOR**stage
        average = _train(network, plan, phases, rate, portraits=portraits, rng=rng, report=report)
    return {name: value.detach().cpu().contiguous() for name, value in average.state_dict().items()}


def _train(
    network: nn.Module,
    plan: TrainingPlan,
    phases: Sequence[Phase],
    peak_rate: float,
    *,
    portraits: Mapping[int, Pixels],
    rng: np.random.Generator,
    report: Report,
) -> nn.Module:
    """Train ``network`` and return the moving average of its weights, in evaluation mode."""
    device = next(network.parameters()).device
    network.train()
    average = copy.deepcopy(network).eval()
    steps = sum(phase.steps for phase in phases)
    optimizer = torch.optim.AdamW(network.parameters(), lr=peak_rate, weight_decay=plan.weight_decay)
    rate = _cycle(optimizer, peak_rate, steps)
    step, running = 0, 0.0
    for index, phase in enumerate(phases):
        if plan.restarts:
            rate = _cycle(optimizer, peak_rate * RESTART_FACTOR**index, phase.steps)
        drawn = portraits[min(size for size in portraits if size >= phase.size)]
        for _ in range(phase.steps):
            loss = _loss(network, plan, _batch(drawn, plan, phase, rng, device))
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimizer.step()
            rate.step()
            step += 1
            running += (loss.item() - running) / min(step, 100)
            # A young average must not remember the random start.
            _average(average, network, min(AVERAGE_DECAY, step / (step + 10)))
            if step % REPORT_EVERY == 0 or step == steps:
                report(step, steps, running, average)
    return average

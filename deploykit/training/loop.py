"""The one training loop: growing image sizes, AdamW on one rate cycle, a moving average of the weights."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from deploykit.training.corpus import Pixels, augment
from deploykit.training.losses import segmentation_loss
from deploykit.training.plan import TrainingPlan
from deploykit.vocab import ColorOrder

# The average looks back over about 1 / (1 - decay) steps.
AVERAGE_DECAY = 0.995
WARM_UP_SHARE = 0.06
REPORT_EVERY = 250

Report = Callable[[int, int, float, nn.Module], None]


def normalise(images: Tensor, plan: TrainingPlan) -> Tensor:
    """Return RGB ``images`` (N, 3, H, W) of 0..255 as the network's input."""
    if plan.color is ColorOrder.BGR:
        images = images.flip(1)
    mean = torch.tensor(plan.mean, device=images.device).view(1, 3, 1, 1)
    std = torch.tensor(plan.std, device=images.device).view(1, 3, 1, 1)
    return (images - mean) / std


def _batch(
    portraits: Pixels, plan: TrainingPlan, size: int, rng: np.random.Generator, device: torch.device
) -> tuple[Tensor, Tensor]:
    chosen = rng.integers(len(portraits), size=plan.batch)
    pairs = [augment(portraits[index], size, rng) for index in chosen]
    images = torch.from_numpy(np.stack([image for image, _ in pairs])).to(device)
    masks = torch.from_numpy(np.stack([mask for _, mask in pairs])).to(device)
    # The permuted view is channels-last, the faster layout for depthwise convolutions on a CPU.
    return normalise(images.permute(0, 3, 1, 2), plan), masks.long()


def _average(average: nn.Module, network: nn.Module, decay: float) -> None:
    with torch.no_grad():
        for kept, new in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
            if kept.is_floating_point():
                kept.lerp_(new, 1 - decay)
            else:
                kept.copy_(new)


def train(plan: TrainingPlan, portraits: Pixels, device: torch.device, report: Report) -> dict[str, Tensor]:
    """Return the trained state dict, float32 on the CPU, of ``plan`` on ``portraits`` (n, 224, 224, 4).

    ``report(step, steps, loss, average)`` is called now and then with the averaged network in eval mode.
    Seeds the global generator of torch.
    """
    torch.manual_seed(plan.seed)
    rng = np.random.default_rng(plan.seed)
    network = plan.factory().to(device=device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    average = copy.deepcopy(network).eval()
    steps = sum(phase.steps for phase in plan.phases)
    optimizer = torch.optim.AdamW(network.parameters(), lr=plan.peak_rate, weight_decay=plan.weight_decay)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, plan.peak_rate, steps, pct_start=WARM_UP_SHARE)
    step, running = 0, 0.0
    for phase in plan.phases:
        low = plan.bfloat16_from is not None and phase.size >= plan.bfloat16_from and device.type == "cpu"
        for _ in range(phase.steps):
            images, masks = _batch(portraits, plan, phase.size, rng, device)
            with torch.autocast(device.type, torch.bfloat16, enabled=low):
                output = network(images)
            loss = segmentation_loss(output, masks)
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
    return {name: value.detach().cpu().contiguous() for name, value in average.state_dict().items()}

"""The criterion: what rounding does is clean, and hardly more is not."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from deploykit.attribution.file import File, Fit
from deploykit.attribution.judge import judge
from deploykit.targets.traced import Trace, TracedValue


def _layer(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return the weight and the input of a 3x3 convolution, in float64."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(16, 8, 3, 3, generator=generator, dtype=torch.float64) / 8
    return weight, torch.randn(1, 8, 20, 20, generator=generator, dtype=torch.float64)


def _run(weight: Tensor, x: Tensor, dtype: torch.dtype, half: bool = False) -> Tensor:
    if half:
        weight, x = weight.half(), x.half()
    found = torch.nn.functional.conv2d(x.to(dtype), weight.to(dtype))
    return found.half().to(dtype) if half else found


@pytest.mark.parametrize("half", [False, True])
def test_another_order_of_summation_is_clean(half: bool) -> None:
    weight, x = _layer()
    exact, rounded = _run(weight, x, torch.float64), _run(weight, x, torch.float32, half)
    parts = [_run(weight[:, i : i + 2], x[:, i : i + 2], torch.float32) for i in range(0, 8, 2)]
    value = sum(parts[1:], start=parts[0])
    value = value.half() if half else value
    assert judge(value.double(), exact, rounded, half=half).clean


@pytest.mark.parametrize(("half", "change"), [(False, 1e-3), (True, 0.1)])
def test_one_changed_weight_is_not(half: bool, change: float) -> None:
    weight, x = _layer()
    exact, rounded = _run(weight, x, torch.float64), _run(weight, x, torch.float32, half)
    weight[3, 2, 1, 1] += change * weight[3].norm()
    value = _run(weight, x, torch.float32, half)
    found = judge(value.double(), exact, rounded, half=half)
    assert not found.clean
    assert found.error > found.explained


def test_a_long_sum_may_be_added_one_after_the_other() -> None:
    x = torch.rand(200_000, generator=torch.Generator().manual_seed(0))
    exact = x.double().mean().reshape(1, 1)
    added = torch.from_numpy(np.cumsum(x.numpy(), dtype=np.float32)[-1:]).reshape(1, 1).double() / len(x)
    assert judge(added, exact, exact.float(), half=False, adding=len(x) ** 0.5).clean
    assert not judge(added * (1 + 1e-3), exact, exact.float(), half=False, adding=len(x) ** 0.5).clean


@pytest.mark.parametrize("half", [False, True])
def test_the_plain_sum_of_a_flat_map_rounds_the_same_way_each_time(half: bool) -> None:
    x = np.full(200_000, 0.7, np.float32)
    exact = torch.tensor([[float(x[0])]], dtype=torch.float64)
    added = torch.from_numpy(np.cumsum(x)[-1:]).reshape(1, 1).double() / len(x)
    assert abs(float(added - exact) / float(exact)) > 2e-3
    assert judge(added, exact, exact.float(), half=half, adding=len(x)).clean
    assert not judge(added, exact, exact.float(), half=half, adding=len(x) ** 0.5).clean
    assert not judge(exact * 1.04, exact, exact.float(), half=half, adding=len(x)).clean


def test_a_runtime_may_read_more_bits_than_it_shows() -> None:
    inner = 1 - 0.02 * torch.rand(1, 4, 20, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shown = inner.half().double()
    value, exact, shaken = (1 - inner).half().double(), 1 - shown, 1 - shown * (1 + 2.0**-11)
    assert judge(value, exact, exact.float(), shaken=shaken.float(), half=True).clean
    assert not judge(value, exact, exact.float(), half=True).clean
    assert not judge(1.5 * value, exact, exact.float(), shaken=shaken.float(), half=True).clean


def test_what_is_not_finite_is_accused_once() -> None:
    weight, x = _layer()
    exact = 1e6 * _run(weight, x, torch.float64)
    overflown = exact.half().double()
    assert judge(overflown, exact, overflown.float(), half=True).explained == math.inf
    assert judge(overflown, exact, exact.float(), half=True).explained == 0
    after = torch.relu(overflown)
    assert judge(after, after, after.float(), half=True).clean


def test_values_are_found_in_other_orders_of_axes() -> None:
    image = np.arange(2 * 3 * 4, dtype=np.float32).reshape(1, 2, 3, 4)
    last = TracedValue("last", "conv", 0, ("x",), image.transpose(0, 2, 3, 1))
    flat = TracedValue("flat", "reshape", 1, ("last",), image.reshape(1, 24))
    file = File(Trace((last, flat), "this test"), {"x": "x"})
    assert file.candidates((1, 2, 3, 4)) == (Fit("last", (0, 3, 1, 2)),)
    assert torch.equal(file.tensor(Fit("last", (0, 3, 1, 2)), (1, 2, 3, 4)), torch.from_numpy(image).double())
    assert [fit.value for fit in file.candidates((24,))] == ["flat"]
    assert file.candidates((1, 2, 4, 4)) == ()
    assert file.before("flat", ()) == {"x"}
    assert file.depends("flat", "last")
    assert not file.depends("last", "flat")

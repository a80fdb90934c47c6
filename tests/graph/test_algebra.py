from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from graph_cases import BOUND

from deploykit.graph import algebra
from deploykit.graph.algebra import BatchNormStats, Kernel

torch.manual_seed(0)


def _rand(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def _stats(channels: int, affine: bool = True) -> BatchNormStats:
    gamma, beta = (_rand(channels), _rand(channels)) if affine else (None, None)
    return BatchNormStats(gamma, beta, _rand(channels), torch.rand(channels, dtype=torch.float64) + 0.3, 1e-3)


def _batch_norm(x: torch.Tensor, bn: BatchNormStats) -> torch.Tensor:
    return F.batch_norm(x, bn.mean, bn.var, bn.gamma, bn.beta, False, 0.1, bn.eps)


def _error(value: torch.Tensor, reference: torch.Tensor) -> float:
    assert value.shape == reference.shape
    return float((value - reference).norm() / reference.norm())


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_folding_into_a_convolution(groups, affine):
    x, weight, bias, bn = _rand(2, 6, 5, 5), _rand(6, 6 // groups, 3, 3), _rand(6), _stats(6, affine)
    expected = _batch_norm(F.conv2d(x, weight, bias, groups=groups), bn)
    folded = algebra.fold_conv_batch_norm(weight, bias, bn)
    assert _error(F.conv2d(x, *folded, groups=groups), expected) <= BOUND


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_folding_into_a_transposed_convolution(groups):
    x, weight, bn = _rand(2, 4, 5, 5), _rand(4, 8 // groups, 3, 3), _stats(8)
    expected = _batch_norm(F.conv_transpose2d(x, weight, None, stride=2, groups=groups), bn)
    folded = algebra.fold_transposed_batch_norm(weight, None, bn, groups)
    assert _error(F.conv_transpose2d(x, *folded, stride=2, groups=groups), expected) <= BOUND


def test_folding_into_a_linear_layer():
    x, weight, bias, bn = _rand(3, 5), _rand(7, 5), _rand(7), _stats(7)
    expected = _batch_norm(F.linear(x, weight, bias), bn)
    assert _error(F.linear(x, *algebra.fold_linear_batch_norm(weight, bias, bn)), expected) <= BOUND


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_identity_kernel_copies(groups):
    x = _rand(1, 6, 4, 4)
    assert torch.equal(F.conv2d(x, algebra.identity_kernel(6, groups), groups=groups), x)


def test_average_pool_kernel_pools():
    x = _rand(1, 3, 6, 6)
    kernel = algebra.average_pool_kernel(3, 2, 3)
    assert _error(F.conv2d(x, kernel, stride=2, groups=3), F.avg_pool2d(x, (2, 3), 2)) <= BOUND
    divided = algebra.average_pool_kernel(3, 2, 3, divisor=5)
    expected = F.avg_pool2d(x, (2, 3), 2, divisor_override=5)
    assert _error(F.conv2d(x, divided, stride=2, groups=3), expected) <= BOUND


@pytest.mark.parametrize(("groups", "fewer"), [(6, 3), (6, 1), (4, 2), (2, 2), (2, 1)])
def test_fewer_groups_hold_the_same_kernel(groups, fewer):
    x, weight = _rand(1, 12, 5, 5), _rand(24, 12 // groups, 3, 3)
    expected = F.conv2d(x, weight, groups=groups)
    assert _error(F.conv2d(x, algebra.regroup(weight, groups, fewer), groups=fewer), expected) <= BOUND


def test_a_kernel_centred_in_a_larger_one():
    x, weight = _rand(1, 2, 9, 9), _rand(3, 2, 1, 3)
    centred = algebra.place_kernel(weight, (5, 5), (2, 1))
    assert _error(F.conv2d(x, centred, padding=2), F.conv2d(x, weight, padding=(0, 1))) <= BOUND
    off = algebra.place_kernel(weight, (5, 5), (2, 2))
    assert _error(F.conv2d(x, off, padding=2), F.conv2d(x, weight, padding=(0, 1))) > 0.1


def test_a_dilated_kernel_on_a_finer_grid():
    x, weight = _rand(1, 2, 9, 9), _rand(3, 2, 3, 3)
    placed = algebra.place_kernel(weight, (5, 5), (0, 0), (2, 2))
    assert _error(F.conv2d(x, placed, padding=2), F.conv2d(x, weight, padding=2, dilation=2)) <= BOUND


@pytest.mark.parametrize("groups", [(1, 1), (2, 1), (1, 2), (4, 2), (8, 1), (1, 8), (8, 8), (2, 8), (8, 4)])
@pytest.mark.parametrize("sizes", [(1, 3), (3, 1), (1, 1)])
def test_composition_of_two_convolutions(groups, sizes):
    first = Kernel(_rand(8, 8 // groups[0], sizes[0], sizes[0]), _rand(8), groups[0])
    second = Kernel(_rand(8, 8 // groups[1], sizes[1], sizes[1]), _rand(8), groups[1])
    x = _rand(1, 8, 6, 6)
    between = F.conv2d(x, first.weight, first.bias, groups=first.groups)
    expected = F.conv2d(between, second.weight, second.bias, groups=second.groups)
    one = algebra.compose(first, second)
    assert _error(F.conv2d(x, one.weight, one.bias, groups=one.groups), expected) <= BOUND


def test_two_large_kernels_do_not_compose():
    large = Kernel(_rand(2, 2, 3, 3), _rand(2), 1)
    with pytest.raises(ValueError, match="must be 1x1"):
        algebra.compose(large, large)

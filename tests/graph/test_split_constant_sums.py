from __future__ import annotations

import pytest
import torch
from form_cases import same_form_twice
from graph_cases import BOUND, Calls, captured, operations, relative_l2, skip_reasons

from deploykit.graph.graph import constant
from deploykit.graph.passes import split_constant_sums as rule
from deploykit.graph.passes.split_constant_sums import repeated_parts, split_constant_sums

ROWS, COLUMNS = 48, 64
SHAPE = (ROWS, COLUMNS, 2)


def grid() -> torch.Tensor:
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, ROWS), torch.linspace(-1, 1, COLUMNS), indexing="ij")
    return torch.stack((columns, rows), dim=2)


def adding(value: torch.Tensor) -> Calls:
    return Calls(lambda m, x: m.fixed + x, fixed=value)


def test_a_grid_of_positions_is_kept_as_rows_and_columns():
    before = captured(adding(grid()), 1, *SHAPE)
    after = same_form_twice(split_constant_sums, before, 1, *SHAPE)
    assert operations(after) == {"add": 2}
    weights = [constant(after.module, node) for node in after.module.graph.nodes if node.op == "get_attr"]
    assert sorted(tuple(one.shape) for one in weights) == [(1, COLUMNS, 2), (ROWS, 1, 2)]
    # The twin: another position is seen.
    weights[0][0, 3, 0] += 0.1
    assert relative_l2(before, after, 1, *SHAPE) > 1e9 * BOUND


def test_the_sum_of_the_parts_is_the_constant_bit_for_bit():
    parts = repeated_parts(grid())
    assert parts is not None
    assert torch.equal(sum(parts, torch.zeros(SHAPE)), grid())


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_are_found_along_any_axis(axis):
    moved = grid().movedim(2, axis)
    parts = repeated_parts(moved)
    assert parts is not None
    assert torch.equal(sum(parts, torch.zeros_like(moved)), moved)


def test_what_does_not_repeat_is_small_or_makes_the_sum_larger_stays():
    almost = grid()
    almost[5, 5, 0] += 1e-3
    for value in (torch.randn(SHAPE), almost, torch.full(SHAPE, torch.nan)):
        assert skip_reasons(split_constant_sums(captured(adding(value), 1, *SHAPE)), rule.NAME) == [rule.NOT_REPEATED]
    larger = split_constant_sums(captured(adding(grid()), 1, 1, 1, 2))
    assert skip_reasons(larger, rule.NAME) == [rule.NOT_REPEATED]
    small = split_constant_sums(captured(adding(grid()[:8, :8]), 1, 8, 8, 2))
    assert (operations(small), skip_reasons(small, rule.NAME)) == ({"add": 1}, [])
    assert operations(split_constant_sums(captured(Calls(lambda m, x: x + 2.0), 1, *SHAPE))) == {"add": 1}

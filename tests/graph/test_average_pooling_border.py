"""Average pooling that leaves its padding out of the count, as one that counts it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from graph_cases import BOUND, Calls, captured_together, operations, relative_l2

from deploykit.graph.graph import Graph
from deploykit.graph.passes.average_pooling_border import average_pooling_border

IMAGE = (1, 4, 11, 14)
WINDOWS = [(3, 2, 1), (3, 1, 1), (5, 3, 2), ((3, 2), (2, 3), (1, 0)), (4, 1, 2), (4, None, 2)]
OTHERS = [{"padding": 1}, {"count_include_pad": False}, {"padding": 1, "count_include_pad": False, "ceil_mode": True}]


@pytest.fixture(scope="module")
def graphs() -> dict[str, Graph]:
    return captured_together(
        {
            **{f"border{i}": _pooling(*w, count_include_pad=False) for i, w in enumerate(WINDOWS)},
            **{f"counted{i}": _pooling(*w) for i, w in enumerate(WINDOWS)},
            **{f"other{i}": _pooling(3, 2, **options) for i, options in enumerate(OTHERS)},
        },
        *IMAGE,
    )


def _pooling(*window, **options) -> Calls:
    return Calls(lambda own, x: F.avg_pool2d(x, *window, **options))


@pytest.mark.parametrize("number", range(len(WINDOWS)))
def test_the_border_is_counted_and_made_good(graphs, number):
    before = graphs[f"border{number}"]
    untouched = operations(before)
    after = average_pooling_border(before)
    assert relative_l2(before, after, *IMAGE) <= BOUND
    assert operations(before) == untouched
    assert len(after.reports[-1].fired) == 1
    assert not average_pooling_border(after).reports[-1].fired


@pytest.mark.parametrize("number", range(len(WINDOWS)))
def test_without_the_product_it_is_another_network(graphs, number):
    before, counted = graphs[f"border{number}"], graphs[f"counted{number}"]
    x = torch.randn(*IMAGE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert float((before.run(x)[0] - counted.run(x)[0]).norm()) > 1e-2 * float(before.run(x)[0].norm())


@pytest.mark.parametrize("number", range(len(OTHERS)))
def test_other_pooling_stays(graphs, number):
    after = average_pooling_border(graphs[f"other{number}"])
    assert not after.reports[-1].fired
    assert not after.reports[-1].skipped
    assert operations(after) == operations(graphs[f"other{number}"])

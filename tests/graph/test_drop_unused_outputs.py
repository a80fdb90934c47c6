from __future__ import annotations

import pytest
import torch
from graph_cases import Calls, captured, operations, relative_l2
from torch import nn

from deploykit.errors import RecipeError
from deploykit.graph.graph import Graph
from deploykit.graph.passes import drop_unused_outputs as rule
from deploykit.graph.passes.drop_unused_outputs import drop_unused_outputs

IMAGE = (1, 4, 6, 6)
NAMES = ("mask", "edge", "aux")


@pytest.fixture(scope="module")
def graph() -> Graph:
    network = Calls(
        lambda m, x: (m.mask(y := m.body(x)), m.edge(z := m.neck(y)), {"aux": m.aux(z)}),
        body=nn.Conv2d(4, 4, 3),
        mask=nn.Conv2d(4, 2, 1),
        neck=nn.Conv2d(4, 4, 1),
        edge=nn.Conv2d(4, 2, 1),
        aux=nn.Conv2d(4, 2, 1),
    )
    return captured(network, *IMAGE, outputs=NAMES)


def test_dropped_outputs_take_their_modules_along(graph):
    after = drop_unused_outputs(graph, ["mask"])
    assert after.outputs == ("mask",)
    fired = after.report(rule.NAME).fired
    assert [(entry.modules, entry.detail) for entry in fired] == [
        (("neck", "edge"), "dropped the output edge"),
        (("aux",), "dropped the output aux"),
    ]
    assert {name.split(".")[0] for name in after.module.state_dict()} == {"body", "mask"}
    assert relative_l2(graph, after, *IMAGE) == 0
    assert graph.outputs == NAMES
    assert len(graph.run(torch.zeros(*IMAGE, dtype=torch.float64))) == 3


def test_the_order_asked_for_is_the_order_returned(graph):
    after = drop_unused_outputs(graph, ["aux", "mask"])
    assert after.outputs == ("aux", "mask")
    assert relative_l2(graph, after, *IMAGE) == 0


def test_nothing_to_drop(graph):
    after = drop_unused_outputs(graph, NAMES)
    assert after.report(rule.NAME).fired == ()
    assert after.module.code == graph.module.code


@pytest.mark.parametrize("keep", [["masks"], [], ["mask", "mask"]])
def test_names_that_cannot_be_kept_are_refused(graph, keep):
    with pytest.raises(RecipeError, match="mask, edge, aux") as caught:
        drop_unused_outputs(graph, keep)
    assert caught.value.found == (", ".join(keep) or "no output")


def test_attention_that_nothing_reads_goes_although_it_counts_as_random():
    attend = torch.nn.functional.scaled_dot_product_attention
    both = captured(Calls(lambda m, x: (x * 2, attend(x, x, x))), *IMAGE, outputs=("kept", "dropped"))
    assert operations(drop_unused_outputs(both, ["kept"])) == {"mul": 1}
    assert "scaled_dot_product_attention" in operations(both)

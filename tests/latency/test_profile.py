"""Which modules an operation computes, from the names of its tensors and the graph of the network."""

from __future__ import annotations

import pytest

from deploykit.latency.agent.profile import kernel_rows
from deploykit.latency.profile import GraphValue, values_in, with_modules
from deploykit.latency_records import OperationTime

# image → conv2d → relu → conv2d_7 → add(relu, conv2d_7)
VALUES = {
    name: GraphValue(name, modules, reads)
    for name, modules, reads in (
        ("image", (), ()),
        ("conv2d", ("stem.conv", "stem.bn"), ("image",)),
        ("relu", ("stem.act",), ("conv2d",)),
        ("conv2d_7", ("a.conv",), ("relu",)),
        ("_norm_1", ("a.bn",), ("conv2d_7",)),
        ("add", ("a",), ("relu", "_norm_1")),
    )
}
# In the file the output has the name of the recipe.
VALUES["logits"] = VALUES["add"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("conv2d_7", ["conv2d_7"]),
        ("conv2d_7_nchwc", ["conv2d_7"]),
        ("relu;conv2d_7;1", ["relu", "conv2d_7"]),
        ("conv2d_8", []),
        ("conv2d_QuantizeLinear_Output", ["conv2d"]),
        ("node__norm_1__0", ["_norm_1"]),
        ("logits", ["add"]),
        ("StatefulPartitionedCall:0", []),
        ("", []),
    ],
)
def test_values_are_found_in_the_names_of_tensors(name: str, expected: list[str]) -> None:
    assert values_in(name, VALUES) == expected


@pytest.mark.parametrize(
    ("makes", "takes", "expected"),
    [
        (("relu",), ("image",), ("stem.conv", "stem.bn", "stem.act")),
        (("relu",), ("conv2d",), ("stem.act",)),
        (("add",), ("relu",), ("a.conv", "a.bn", "a")),
        (("add",), ("relu", "conv2d_7"), ("a.bn", "a")),
        (("logits",), ("relu", "_norm_1"), ("a",)),
        # A tensor without a name of a value: nothing is known of what lies between.
        (("add",), ("relu", "step_3__bn"), ("a",)),
        (("add",), ("conv2d",), ("stem.act", "a.conv", "a.bn", "a")),
        (("add",), ("_norm_1",), ("a",)),
        (("add",), (), ("a",)),
        (("nothing",), ("relu",), ()),
    ],
)
def test_an_operation_computes_what_lies_between_its_tensors(
    makes: tuple[str, ...], takes: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    one = OperationTime("n", "Conv", 1.0, values=makes, reads=takes)
    assert with_modules([one], VALUES)[0].modules == expected


def test_a_copy_into_another_order_is_looked_through_and_has_no_modules() -> None:
    operations = [
        OperationTime("r", "ReorderInput", 1.0, values=("reorder",), reads=("image",)),
        OperationTime("c", "Conv", 2.0, values=("token_1",), reads=("reorder",)),
        OperationTime("o", "ReorderOutput", 1.0, values=("relu",), reads=("token_1",)),
        OperationTime("conv2d_7_nchwc", "Conv", 3.0, values=("token_2",), reads=("token_1",)),
        OperationTime("p", "ReorderOutput", 1.0, values=("token_3",), reads=("token_2",)),
        OperationTime("q", "Add", 4.0, values=("logits",), reads=("relu", "token_3")),
    ]
    found = {one.name: one.modules for one in with_modules(operations, VALUES)}
    assert found == {
        "r": (),
        "c": ("stem.conv", "stem.bn", "stem.act"),
        "o": (),
        "conv2d_7_nchwc": ("a.conv",),
        "p": (),
        "q": ("a.bn", "a"),
    }


def test_the_longest_comes_first_and_modules_that_are_known_stay() -> None:
    operations = [OperationTime("a", "Conv", 1.0, ("x",)), OperationTime("b", "Conv", 2.0, values=("conv2d_7",))]
    assert [(one.name, one.modules) for one in with_modules(operations, VALUES)] == [("b", ("a.conv",)), ("a", ("x",))]


def test_the_runs_before_those_asked_for_do_not_count() -> None:
    events = [
        {"cat": "Node", "name": "c_kernel_time", "ts": ts, "dur": dur, "args": {"op_name": "Conv"}}
        for ts, dur in ((3, 20), (1, 900), (2, 10))
    ]
    events += [
        {"cat": "Session", "name": "model_run", "ts": 0, "dur": 1000},
        {"cat": "Node", "name": "c_fence", "ts": 4},
    ]
    (row,) = kernel_rows(events, {"c": (["y"], ["x"])}, 2)
    assert row == {
        "name": "c",
        "operation": "Conv",
        "seconds": pytest.approx(15e-6),
        "values": ["y"],
        "reads": ["x"],
        "modules": [],
    }

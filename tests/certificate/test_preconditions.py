"""Each precondition says no where it does not hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from deploykit.certificate.expression import Expression
from deploykit.certificate.layer import CONVOLUTION, Layer
from deploykit.certificate.preconditions import preconditions, readers_outside
from deploykit.certificate.records import Operation, Term

PADDED = {"stride": [1, 1], "padding": [1, 1], "dilation": [1, 1], "groups": 1}
NORM = {"eps": 1e-5, "training": False}
STATISTICS = {"gamma": "gamma", "beta": "beta", "mean": "mean", "var": "var"}
TENSORS = {
    "weight": np.ones((2, 2, 3, 3)),
    "gamma": np.array([1.0, -2.0]),
    "beta": np.array([0.5, 0.0]),
    "mean": np.array([0.0, 1.0]),
    "var": np.array([1.0, 0.25]),
}
FOLDED = Layer(CONVOLUTION, None, None, (1, 1), (1, 1), (1, 1), 1)


def convolution(value: str, reads: str, **numbers: Any) -> Operation:
    return Operation(value, CONVOLUTION, value, (reads,), {"weight": "weight"}, {**PADDED, **numbers})


def batch_norm(value: str, reads: str, **numbers: Any) -> Operation:
    return Operation(value, "BatchNorm", value, (reads,), STATISTICS, {**NORM, **numbers})


def border(value: str, reads: str, name: str) -> Operation:
    return Operation(value, "border", value, (reads,), {"value": name}, {"before": [1, 1]})


def broken(operations, tensors=None, terms=None, layer=FOLDED, others=()):
    """The names of the preconditions that do not hold."""
    ends = terms or (Term(operations[-1].value, 1.0),)
    expressed = Expression("x", tuple(operations), ends, {**TENSORS, **(tensors or {})})
    return [one.name for one in preconditions(expressed, layer, others) if not one.holds]


GOOD = [convolution("conv", "x"), batch_norm("bn", "conv")]


def test_a_good_block_holds():
    assert broken(GOOD) == []


@pytest.mark.parametrize(
    ("operations", "tensors", "name"),
    [
        ([GOOD[0], batch_norm("bn", "conv", training=True)], {}, "evaluation mode"),
        ([GOOD[0], batch_norm("bn", "conv", eps=0.0)], {}, "eps above 0"),
        (GOOD, {"var": np.array([1.0, -1e-9])}, "variance not below 0"),
        (GOOD, {"beta": np.array([np.inf, 0.0])}, "float64"),
        ([batch_norm("bn", "x"), convolution("conv", "bn")], {}, "order of padding"),
        (
            [batch_norm("bn", "x"), border("edge", "bn", "zero"), convolution("conv", "edge", padding=[0, 0])],
            {"zero": np.zeros(2)},
            "order of padding",
        ),
        ([convolution("conv", "x", groups=1)], {}, "groups"),
    ],
)
def test_each_precondition_can_fail(operations, tensors, name):
    layer = Layer(CONVOLUTION, None, None, (1, 1), (1, 1), (1, 1), 2) if name == "groups" else FOLDED
    assert broken(operations, tensors, layer=layer) == [name]


def test_a_shift_before_a_kernel_that_does_not_pad_is_exact():
    assert broken([batch_norm("bn", "x"), convolution("conv", "bn", padding=[0, 0])]) == []


def test_a_border_of_the_response_to_zero_is_exact():
    response = TENSORS["beta"] - TENSORS["gamma"] * TENSORS["mean"] / np.sqrt(TENSORS["var"] + 1e-5)
    operations = [batch_norm("bn", "x"), border("edge", "bn", "value"), convolution("conv", "edge", padding=[0, 0])]
    assert broken(operations, {"value": response}) == []
    assert broken(operations, {"value": response + 1e-9}) == ["order of padding"]


def test_terms_of_two_strides_are_not_one_convolution():
    operations = [convolution("one", "x"), convolution("two", "x", stride=[2, 2])]
    assert broken(operations, terms=(Term("one", 1.0), Term("two", 1.0))) == ["one stride"]


def test_pooling_that_divides_by_fewer_at_the_border_is_none():
    numbers = {"size": [3, 3], "stride": [1, 1], "padding": [1, 1], "divisor": 9, "even": False}
    assert broken([Operation("pool", "average pooling", "pool", ("x",), {}, numbers)]) == ["pooling"]


def test_another_reader_is_named(case):
    assert broken(GOOD, others=("relu",)) == ["no other reader"]
    replaced = case.subject.blocks[0]
    nodes = {node.name: node for node in case.subject.plain.module.graph.nodes}
    (end,) = (nodes[term.value] for term in replaced.terms)
    inner = end.args[0]
    assert readers_outside({inner, end}, [end]) == ()
    assert readers_outside({inner}, []) == (end.name,)

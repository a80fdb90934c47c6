"""Checking a certificate: what is as recorded passes, and each changed field is named with its block."""

from __future__ import annotations

import copy
from dataclasses import fields, is_dataclass, replace

import pytest
import torch
from certificate_cases import NETWORKS, certified

from deploykit.certificate import check
from deploykit.certificate.check import compare_certificate
from deploykit.certificate.file import ReadCertificate
from deploykit.certificate.make import certify
from deploykit.certificate.records import Block, Box, Certificate, FoldedLayer, Precondition
from deploykit.verify.samples import draw_samples


@pytest.fixture(scope="module")
def small():
    """A fold and a merge: the whole check of many changes stays fast."""
    return certified({name: NETWORKS[name] for name in ("transposed", "repvgg")}, size=12)


@pytest.fixture(scope="module")
def made(small) -> Certificate:
    return certify(small.network, draw_samples(small.network.recipe), training=small.training, deploy=small.deploy)


@pytest.fixture
def checked(small, monkeypatch):
    """Check a certificate against the network as it was captured once: the capture is the slow part."""
    monkeypatch.setattr(check, "examine", lambda network, samples: replace(small.subject, network=network))

    def run(certificate: Certificate, network=None):
        return compare_certificate(ReadCertificate(certificate, "f" * 64, ()), network or small.network)

    return run


def changed(value):
    """Another value of the same kind, so little different that only an exact comparison or the stated one sees it."""
    if is_dataclass(value):
        name = next(f.name for f in fields(value))
        return replace(value, **{name: changed(getattr(value, name))})
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value * 1.01
    if isinstance(value, str):
        return value[:-1] + ("0" if value[-1:] != "0" else "1")
    if isinstance(value, tuple):
        return (changed(value[0]), *value[1:]) if value else (1,)
    return {**value, "added": "x"}


def test_an_unchanged_certificate_passes(made, checked):
    result = checked(made)
    assert result.differences == ()
    assert result.passed
    assert result.blocks == 2


def test_the_network_is_captured_again_where_nothing_is_given(made, small):
    assert compare_certificate(ReadCertificate(made, "", ()), small.network).passed


@pytest.mark.parametrize("field", ["recipe", "recipe_sha256", "checkpoint_sha256", "input_shapes", "scope", "trust"])
def test_a_changed_head_is_named(made, checked, field):
    result = checked(replace(made, **{field: changed(getattr(made, field))}))
    assert [one.what for one in result.differences] == [field]


@pytest.mark.parametrize("field", ["kind", "modules", "source", "algebra", "operations", "terms", "preconditions"])
@pytest.mark.parametrize("index", [0, 1])
def test_a_changed_statement_is_named_with_its_block(made, checked, field, index):
    blocks = list(made.blocks)
    blocks[index] = replace(blocks[index], **{field: changed(getattr(blocks[index], field))})
    result = checked(replace(made, blocks=tuple(blocks)))
    assert [(one.where, one.what) for one in result.differences] == [(blocks[index].name, field)]


@pytest.mark.parametrize("field", ["weight", "bias", "stride", "padding", "dilation", "groups", "recomputed", "kind"])
def test_a_changed_layer_is_named(made, checked, field):
    block = made.blocks[0]
    layer = replace(block.layer, **{field: changed(getattr(block.layer, field))})
    result = checked(replace(made, blocks=(replace(block, layer=layer), *made.blocks[1:])))
    assert [(one.where, one.what) for one in result.differences] == [(block.name, f"folded {field}")]


@pytest.mark.parametrize("leaf", ["float32_sha256", "float64_sha256"])
def test_a_changed_hash_is_found(made, checked, leaf):
    block = made.blocks[1]
    weight = replace(block.layer.weight, **{leaf: changed(getattr(block.layer.weight, leaf))})
    changed_block = replace(block, layer=replace(block.layer, weight=weight))
    result = checked(replace(made, blocks=(made.blocks[0], changed_block)))
    assert [one.what for one in result.differences] == ["folded weight"]


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize(
    "field", ["unit_roundoff", "roundings", "gamma", "worst_bound", "weight_rounding", "largest_sum", "overflows"]
)
def test_a_changed_bound_is_named(made, checked, precision, field):
    block = made.blocks[0]
    rounding = getattr(block, precision)
    moved = replace(rounding, **{field: changed(getattr(rounding, field))})
    result = checked(replace(made, blocks=(replace(block, **{precision: moved}), *made.blocks[1:])))
    assert [(one.where, one.what) for one in result.differences] == [(block.name, f"{precision} {field}")]


def test_a_smaller_bound_of_one_channel_is_named(made, checked):
    block = made.blocks[0]
    bounds = list(block.float32.bounds)
    bounds[2] *= 0.99
    moved = replace(block, float32=replace(block.float32, bounds=tuple(bounds)))
    result = checked(replace(made, blocks=(moved, *made.blocks[1:])))
    assert [one.what for one in result.differences] == ["float32 bound of channel 2"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("float64_error", 1e-6), ("fold_error", 1e-6), ("float32_error", 1.0), ("share_of_bound", 1.5)],
)
def test_a_measurement_that_cannot_be_is_named(made, checked, field, value):
    block = made.blocks[0]
    moved = replace(block, measured=replace(block.measured, **{field: value}))
    result = checked(replace(made, blocks=(moved, *made.blocks[1:])))
    assert [one.what for one in result.differences] == [field]


@pytest.mark.parametrize("factor", [0.99, 1.01])
def test_a_box_that_is_not_what_the_samples_show_is_named(made, checked, factor):
    block = made.blocks[0]
    box = Box(block.box.lower, (block.box.upper[0] * factor, *block.box.upper[1:]))
    result = checked(replace(made, blocks=(replace(block, box=box), *made.blocks[1:])))
    assert "box" in [one.what for one in result.differences]


def test_a_box_of_more_samples_may_be_larger(made, checked):
    """Photos that the certificate was made with are not at hand: its box must hold what is seen without them."""
    samples = {**made.samples, "photo.jpg": "0" * 64}
    block = made.blocks[0]
    for factor, passes in ((1.5, True), (0.9, False)):
        box = Box(block.box.lower, tuple(value * factor for value in block.box.upper))
        named = {
            one.what for one in checked(replace(made, samples=samples, blocks=(replace(block, box=box),))).differences
        }
        assert ("box" not in named) == passes


def test_a_missing_and_an_added_block_are_named(made, checked):
    first = made.blocks[0]
    assert [(one.where, one.found) for one in checked(replace(made, blocks=made.blocks[1:])).differences] == [
        (first.name, "folded or merged")
    ]
    added = replace(first, name="nowhere")
    result = checked(replace(made, blocks=(*made.blocks, added)))
    assert [(one.where, one.found) for one in result.differences] == [("nowhere", "not there")]


@pytest.mark.parametrize("statistic", ["weight", "running_var"])
def test_another_checkpoint_is_found_and_its_block_named(made, small, statistic):
    module = copy.deepcopy(small.network.module)
    tensor = module.state_dict()["cases.repvgg.branches.1.1." + statistic]
    tensor[1] = torch.nextafter(tensor[1], torch.tensor(9.0))
    other = replace(small.network, module=module, checkpoint_sha256="d" * 64)
    found = compare_certificate(ReadCertificate(made, "", ()), other).differences
    assert {one.where for one in found} == {"", "cases.repvgg"}
    assert {one.what for one in found} >= {"checkpoint_sha256", "folded weight"}


def test_another_eps_is_found(made, small):
    module = copy.deepcopy(small.network.module)
    module.cases["transposed"][1].eps = 2e-5
    found = compare_certificate(ReadCertificate(made, "", ()), replace(small.network, module=module)).differences
    assert {one.where for one in found} == {"cases.transposed.1"}
    assert {one.what for one in found} >= {"folded weight", "operations", "preconditions"}
    (shown,) = [one for one in found if one.what == "preconditions"]
    assert "2e-05" in shown.found
    assert "2e-05" not in shown.recorded
    for text in (shown.recorded, shown.found):
        assert text.startswith("name: ")
        assert text.count("name: ") == 1


def test_what_does_not_hold_now_is_a_difference_whatever_was_recorded(made, small, checked, monkeypatch):
    """A record that claims to hold does not make it so."""
    wrong = Precondition("eps above 0", holds=False, why="least eps 0")
    block = replace(made.blocks[0], preconditions=(wrong,))
    monkeypatch.setattr(check, "certify_block", lambda subject, replaced, box: block)
    named = [one.what for one in checked(replace(made, blocks=(block,))).differences]
    assert "verdict" in named


def test_every_field_of_a_block_is_compared():
    compared = {"name", *check.EXACT, "layer", "box", "float32", "float16", "measured"}
    assert {field.name for field in fields(Block)} == compared
    assert {field.name for field in fields(FoldedLayer)} == set(check.LAYER)

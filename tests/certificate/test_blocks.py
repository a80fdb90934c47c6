"""Every kind of block is traced back, recomputed and measured; a damaged one is named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from certificate_cases import NETWORKS, certified

from deploykit.certificate.make import certify_block
from deploykit.graph import algebra
from deploykit.graph.capture import weights

MERGED = {"repvgg", "strided", "asymmetric", "grouped", "partial", "sources", "diverse"}


def blocks_of(case, name):
    found = [block for path, block in case.blocks.items() if path.split(".")[1] == name]
    assert found
    return found


@pytest.mark.parametrize("name", NETWORKS)
def test_every_block_holds(case, name):
    for block in blocks_of(case, name):
        assert block.faults() == ()
        assert block.layer.recomputed
        assert block.measured.float64_error <= 2e-15
        assert block.measured.fold_error <= 2e-15
        assert 0 < block.measured.share_of_bound <= 1
        assert len(block.float32.bounds) > 0
    assert any(block.kind == "merge" for block in blocks_of(case, name)) == (name in MERGED)


def test_every_fold_and_merge_is_in_a_block(case):
    fired = {
        module
        for name in ("fold_batch_norm", "merge_branches")
        for one in case.deploy.report(name).fired
        for module in one.modules
    }
    assert fired == {module for block in case.blocks.values() for module in block.modules}


def test_the_algebra_of_a_block_is_named(case):
    (diverse,) = blocks_of(case, "diverse")
    names = {one.name for one in diverse.algebra}
    assert names == {
        "BatchNorm folded into the layer before it",
        "scale and shift per channel",
        "sum of parallel branches",
        "average pooling as a kernel",
        "convolution after convolution",
        "border of the response to zero",
    }
    (identity,) = blocks_of(case, "repvgg")
    assert "identity as a kernel" in {one.name for one in identity.algebra}


def test_terms_that_stay_in_a_sum_are_not_certified_with_it(case):
    (partial,) = blocks_of(case, "partial")
    assert len(partial.terms) == 2
    first, second = blocks_of(case, "sources")
    assert first.source != second.source
    assert {term.value for term in first.terms}.isdisjoint(term.value for term in second.terms)


def test_a_module_that_is_called_twice_makes_two_blocks(case):
    assert [block.name for block in blocks_of(case, "twice")] == ["cases.twice.layer.1", "cases.twice.layer.1 #2"]


@pytest.mark.parametrize("name", ["fold", "transposed", "repvgg", "diverse", "vectors"])
@pytest.mark.parametrize("leaf", ["weight", "bias"])
def test_a_changed_folded_weight_is_found(case, name, leaf):
    damaged = replace(case.subject, deploy=case.deploy.copy())
    replaced = next(one for one in damaged.blocks if one.name.split(".")[1] == name)
    target = str(getattr(replaced.layer, leaf).target)
    tensor = weights(damaged.deploy)[target]
    tensor.view(-1)[0] += 1e-9 * float(tensor.abs().max())
    block = certify_block(damaged, replaced, damaged.boxes[replaced.name])
    assert any("float64 error" in fault for fault in block.faults())
    assert any("passes' weights differ" in fault for fault in block.faults())


@pytest.mark.parametrize("dropped", ["gamma", "beta", "mean", "var"])
def test_a_folding_rule_that_forgets_a_statistic_is_found(monkeypatch, dropped):
    right = algebra.BatchNormStats.affine

    def wrong(stats):
        neutral = torch.ones_like(stats.mean) if dropped in ("gamma", "var") else torch.zeros_like(stats.mean)
        return right(replace(stats, **{dropped: neutral}))

    monkeypatch.setattr(algebra.BatchNormStats, "affine", wrong)
    damaged = certified({name: NETWORKS[name] for name in ("fold", "transposed", "repvgg")})
    assert all(block.faults() for block in damaged.blocks.values())


def test_a_changed_tensor_of_the_state_dict_changes_the_hash_of_its_block_alone(case):
    state = {name: value.copy() for name, value in case.subject.state.items()}
    state["cases.repvgg.branches.0.0.weight"].view(np.int64).flat[0] ^= 1 << 29  # the last bit of float32
    changed = replace(case.subject, state=state)
    for replaced in case.subject.blocks:
        before = case.blocks[replaced.name].layer
        after = certify_block(changed, replaced, case.subject.boxes[replaced.name]).layer
        same = replaced.name != "cases.repvgg"
        assert (before.weight.float64_sha256 == after.weight.float64_sha256) == same


def test_the_measurement_includes_the_border(case):
    """A layer that reads zeros instead of the first row has the right weights and another border."""
    damaged = case.deploy.copy()
    first = case.subject.blocks[0]
    node = next(node for node in damaged.module.graph.nodes if node.name == first.node.name)
    convolve = node.target
    node.target = lambda x, *rest: convolve(torch.cat((torch.zeros_like(x[:, :, :1]), x[:, :, 1:]), 2), *rest)
    block = certify_block(case.subject, replace(first, node=node), case.subject.boxes[first.name])
    assert block.measured.float64_error > 1e-3
    assert block.measured.fold_error <= 2e-15

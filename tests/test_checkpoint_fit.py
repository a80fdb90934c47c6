"""Loading is strict: names, shapes, types and values."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from deploykit.checkpoint import Checkpoint, fit_state_dict, load_into, read_checkpoint
from deploykit.errors import CheckpointError
from deploykit.models.sinet import SINet


def net() -> nn.Sequential:
    torch.manual_seed(5)
    made = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.PReLU(4))
    for tensor in (made[1].weight, made[1].bias, made[1].running_mean, made[1].running_var):
        nn.init.uniform_(tensor, 0.1, 2.0)
    return made


def checkpoint(tensors: dict[str, torch.Tensor]) -> Checkpoint:
    return Checkpoint(Path("net.pth"), "0" * 64, "torch-zip", tensors, "", ("a note",))


def test_load_into_a_copy() -> None:
    trained, fresh = net(), net()
    for parameter in fresh.parameters():
        nn.init.zeros_(parameter)
    before = copy.deepcopy(fresh.state_dict())
    loaded, notes = load_into(fresh, checkpoint(dict(trained.state_dict())), {})
    assert notes == ("a note",)
    assert not loaded.training
    assert fresh.training
    assert all(torch.equal(before[name], tensor) for name, tensor in fresh.state_dict().items())
    assert all(torch.equal(loaded.state_dict()[name], t) for name, t in trained.state_dict().items())
    x = torch.randn(1, 3, 8, 8)
    assert torch.equal(loaded(x), trained.eval()(x))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_values_take_the_type_of_the_network(dtype: torch.dtype) -> None:
    state = {name: t.to(dtype) if t.is_floating_point() else t for name, t in net().state_dict().items()}
    loaded, _ = load_into(net(), checkpoint(state), {})
    assert all(p.dtype == torch.float32 for p in loaded.parameters())
    assert torch.equal(loaded.state_dict()["0.weight"], state["0.weight"].float())


def test_old_checkpoints_without_step_counters() -> None:
    state = {name: t for name, t in net().state_dict().items() if not name.endswith("num_batches_tracked")}
    _, notes = load_into(net(), checkpoint(state), {})
    assert notes[1] == "the checkpoint has no num_batches_tracked (1 in the network): inference does not read it"
    two = nn.Sequential(net(), net())
    half = {name: t for name, t in two.state_dict().items() if name != "1.1.num_batches_tracked"}
    with pytest.raises(CheckpointError, match=r"1 missing: 1\.1\.num_batches_tracked"):
        load_into(two, checkpoint(half), {})


def test_faults_are_named_the_first_ten_and_the_count() -> None:
    expected = {f"a{i}": (2,) for i in range(12)} | {"same": (3, 1), "odd": ()}
    tensors = {f"b{i}": torch.ones(2) for i in range(11)} | {"same": torch.ones(1, 3), "odd": torch.ones(())}
    with pytest.raises(CheckpointError, match="does not fit") as caught:
        fit_state_dict(tensors, expected, key_map={}, where="net.pth")
    assert caught.value.where == "net.pth"
    assert caught.value.found == (
        "12 missing: a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, and 2 more; "
        "11 unexpected: b0, b1, b2, b3, b4, b5, b6, b7, b8, b9, and 1 more; "
        "1 wrong shape: same (1, 3) instead of (3, 1)"
    )


@pytest.mark.parametrize(
    ("key_map", "name", "renamed"),
    [
        ({"net": "backbone"}, "net.conv.weight", "backbone.conv.weight"),
        ({"net.": "backbone."}, "net.conv.weight", "backbone.conv.weight"),
        ({"net": "backbone"}, "network.conv", "network.conv"),
        ({"model.": ""}, "model.conv", "conv"),
        ({"model": ""}, "model.conv", "conv"),
        ({"": "net."}, "conv", "net.conv"),
        ({"": "net."}, "a.conv", "net.a.conv"),
        ({"a": "x", "a.b": "y"}, "a.b.c", "y.c"),
        ({"a": "b", "b": "c"}, "a.w", "b.w"),
        ({"conv.weight": "kernel"}, "conv.weight", "kernel"),
    ],
)
def test_key_map(key_map: dict[str, str], name: str, renamed: str) -> None:
    assert list(fit_state_dict({name: torch.ones(1)}, {renamed: (1,)}, key_map=key_map)) == [renamed]


def test_key_map_that_gives_one_name_twice() -> None:
    tensors = {"a.w": torch.ones(1), "b.w": torch.ones(1)}
    with pytest.raises(CheckpointError, match=r"two tensors the name 'b\.w'"):
        fit_state_dict(tensors, {"b.w": (1,)}, key_map={"a": "b"})


def test_entries_of_the_key_map_that_fit_nothing_are_said() -> None:
    _, notes = load_into(net(), checkpoint(dict(net().state_dict())), {"head": "tail"})
    assert notes[1] == "entries of the key map that fit no tensor: 'head'"


@pytest.mark.parametrize(
    ("value", "dtype", "words"),
    [
        (float("nan"), torch.float32, "NaN"),
        (float("inf"), torch.float32, "infinity as torch.float32"),
        (1e300, torch.float64, "infinity as torch.float32"),
        (1j, torch.complex64, "torch.complex64"),
    ],
)
def test_values_that_the_network_cannot_take(value: complex, dtype: torch.dtype, words: str) -> None:
    state = dict(net().state_dict())
    state["1.bias"] = torch.tensor([0, value, 0, 0], dtype=dtype)
    with pytest.raises(CheckpointError, match=r"'1\.bias'") as caught:
        load_into(net(), checkpoint(state), {})
    assert words in str(caught.value)


def test_largest_finite_value_is_taken() -> None:
    state = dict(net().state_dict())
    state["1.bias"] = torch.full((4,), 3.0e38, dtype=torch.float64)
    loaded, _ = load_into(net(), checkpoint(state), {})
    assert torch.equal(loaded.state_dict()["1.bias"], torch.full((4,), 3.0e38))


def test_the_real_sinet_fits(shared_cases: Path) -> None:
    found = read_checkpoint(shared_cases / "sinet_clovaai" / "SINet.pth")
    loaded, notes = load_into(SINet(), found, {})
    assert notes == ()
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in found.tensors.items())

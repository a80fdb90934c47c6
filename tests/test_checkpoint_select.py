"""Which tensors of a checkpoint are taken, and what is said about the others."""

from __future__ import annotations

import argparse
import warnings
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from deploykit.checkpoint import read_checkpoint
from deploykit.errors import CheckpointError
from deploykit.models.sinet import SINet

STATE = {"conv.weight": torch.arange(6.0).reshape(2, 3), "conv.bias": torch.tensor([1.0, 2.0])}
OTHER = {"conv.weight": -STATE["conv.weight"], "conv.bias": -STATE["conv.bias"]}


class HistoryBuffer:
    """A framework's logger, as mmengine pickles it beside the tensors."""

    def __init__(self) -> None:
        self.history = np.arange(5.0)
        self.statistics = {"mean": np.float64(2.0)}


class ConfigDict(dict[str, object]):
    """A dictionary of a framework's own class."""


def save(path: Path, content: object) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(content, path)
    return path


def is_state(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return list(found) == list(expected) and all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    "key", ["state_dict", "model", "net", "params", "model_state_dict", "ema", "module", "network", "params_ema"]
)
def test_usual_wrappings(tmp_path: Path, key: str) -> None:
    checkpoint = read_checkpoint(save(tmp_path / "net", {"epoch": 3, key: STATE, "best": 0.5}))
    assert checkpoint.selected_key == key
    assert checkpoint.notes == ()
    assert is_state(checkpoint.tensors, STATE)


def test_wrapped_twice(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(save(tmp_path / "net", {"model": {"state_dict": STATE}}))
    assert checkpoint.selected_key == "model.state_dict"


def test_training_objects_beside_the_tensors(tmp_path: Path) -> None:
    net = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    content = {
        "meta": {"hooks": [print], "config": ConfigDict(lr=0.1), "seen": {"a", "b"}},
        "message_hub": {"loss": HistoryBuffer(), "counts": defaultdict(int, {"a": 1})},
        "args": argparse.Namespace(lr=0.1, path=Path("a")),
        "metric": np.float32(0.5),
        "state_dict": net.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    checkpoint = read_checkpoint(save(tmp_path / "net", content))
    assert is_state(checkpoint.tensors, dict(net.state_dict()))
    assert len(checkpoint.notes) == 1
    assert "HistoryBuffer" in checkpoint.notes[0]
    assert "argparse.Namespace" in checkpoint.notes[0]


def test_lightning(tmp_path: Path) -> None:
    state = {f"model.{name}": tensor for name, tensor in STATE.items()}
    content = {
        "pytorch-lightning_version": "2.4.0",
        "state_dict": state,
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}}],
        "callbacks": {"ModelCheckpoint{'monitor': 'loss'}": {"best_model_score": torch.tensor(0.5)}},
        "loops": {"fit_loop": {"state_dict": {}}},
    }
    checkpoint = read_checkpoint(save(tmp_path / "net.ckpt", content))
    assert is_state(checkpoint.tensors, state)
    assert checkpoint.notes == ()


def test_the_first_usual_name_is_taken_and_the_others_are_said(tmp_path: Path) -> None:
    path = save(tmp_path / "net", {"state_dict_ema": OTHER, "state_dict": STATE})
    checkpoint = read_checkpoint(path)
    assert is_state(checkpoint.tensors, STATE)
    note = "took 'state_dict'; tensors also under state_dict_ema: --checkpoint-key chooses"
    assert checkpoint.notes == (note,)
    chosen = read_checkpoint(path, key="state_dict_ema")
    assert chosen.selected_key == "state_dict_ema"
    assert is_state(chosen.tensors, OTHER)


def test_a_single_unusual_name_is_taken_and_said(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(save(tmp_path / "net", {"generator": STATE, "epoch": 2}))
    assert checkpoint.selected_key == "generator"
    assert checkpoint.notes == ("took 'generator', the only place that holds tensors",)


def test_several_unusual_names_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "net", {"student": STATE, "teacher": {"deep": OTHER}})
    with pytest.raises(CheckpointError, match="several places") as caught:
        read_checkpoint(path)
    assert "student (2 tensors), teacher.deep (2 tensors)" in str(caught.value)
    assert "--checkpoint-key" in str(caught.value)
    assert is_state(read_checkpoint(path, key="teacher").tensors, OTHER)


def test_training_state_alone_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "net", {"optimizer": {"momentum": torch.ones(3)}})
    with pytest.raises(CheckpointError, match="training state only"):
        read_checkpoint(path)
    assert list(read_checkpoint(path, key="optimizer").tensors) == ["momentum"]


def test_dotted_keys(tmp_path: Path) -> None:
    flat = {f"model_ema.{name}": tensor for name, tensor in OTHER.items()} | STATE
    path = save(tmp_path / "net", {"ema": {"module": OTHER, "decay": 0.9}, "a.b": STATE, "state_dict": flat})
    assert is_state(read_checkpoint(path, key="ema.module").tensors, OTHER)
    assert is_state(read_checkpoint(path, key="a.b").tensors, STATE)
    by_prefix = read_checkpoint(path, key="state_dict.model_ema")
    assert is_state(by_prefix.tensors, OTHER)
    assert by_prefix.selected_key == "state_dict.model_ema"
    assert by_prefix.notes == ("took the 2 tensors whose names begin with 'model_ema.'",)


def test_unknown_key_lists_the_known_ones(tmp_path: Path) -> None:
    path = save(tmp_path / "net", {"ema": {"module": OTHER}, "state_dict": STATE})
    for key in ("model", "ema.net", "state_dict.conv.weight.x", "."):
        with pytest.raises(CheckpointError, match="has no key") as caught:
            read_checkpoint(path, key=key)
        assert "state_dict (2 tensors), ema.module (2 tensors)" in str(caught.value)


def test_entries_that_are_no_tensors_are_left_out_and_said(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(save(tmp_path / "net", {**STATE, "epoch": 3, "_extra_state": None}))
    assert is_state(checkpoint.tensors, STATE)
    assert checkpoint.notes == ("left out 2 entries that are no tensors: epoch, _extra_state",)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_wrapper_prefixes_are_stripped_and_said(tmp_path: Path, prefix: str) -> None:
    state = {prefix + name: tensor for name, tensor in STATE.items()}
    checkpoint = read_checkpoint(save(tmp_path / "net", {"state_dict": state}))
    assert is_state(checkpoint.tensors, STATE)
    assert checkpoint.notes[0] == f"stripped prefix {prefix.partition('.')[0] + '.'!r} from 2 keys"


def test_a_prefix_that_not_all_keys_share_stays(tmp_path: Path) -> None:
    state = {"module.a": torch.ones(1), "b": torch.ones(1)}
    checkpoint = read_checkpoint(save(tmp_path / "net", state))
    assert is_state(checkpoint.tensors, state)
    assert checkpoint.notes == ()


def test_averaged_model(tmp_path: Path) -> None:
    net = nn.Linear(3, 2)
    averaged = torch.optim.swa_utils.AveragedModel(net)
    checkpoint = read_checkpoint(save(tmp_path / "net", averaged.state_dict()))
    assert is_state(checkpoint.tensors, dict(net.state_dict()))
    assert "n_averaged" in checkpoint.notes[0]


def test_a_dictionary_of_another_class(tmp_path: Path) -> None:
    assert is_state(read_checkpoint(save(tmp_path / "net", {"model": ConfigDict(STATE)})).tensors, STATE)


def test_pickled_networks_in_the_places_of_yolo_files(tmp_path: Path) -> None:
    torch.manual_seed(3)
    net = SINet().half()
    for content in (net, {"model": net}, {"model": None, "ema": net, "epoch": -1}, nn.DataParallel(net)):
        checkpoint = read_checkpoint(save(tmp_path / "net", content))
        assert is_state(checkpoint.tensors, dict(net.state_dict()))
    assert f"stripped prefix 'module.' from {len(net.state_dict())} keys" in checkpoint.notes


def test_weights_shared_by_two_names(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    found = read_checkpoint(save(tmp_path / "net", net)).tensors
    assert is_state(found, dict(net.state_dict()))
    assert found["0.weight"].data_ptr() == found["1.weight"].data_ptr()

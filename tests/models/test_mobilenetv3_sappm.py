"""MobileNetV3 with SAPPM against its facts: parameters, the paper's cost, and the two layouts of public checkpoints."""

from __future__ import annotations

import pickle
import sys
from collections import Counter
from types import ModuleType
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from deploykit.checkpoint import read_checkpoint
from deploykit.errors import CheckpointError
from deploykit.models.mobilenetv3_sappm import MobileNetV3Sappm, SamePadConv2d, same_padding, warp
from deploykit.network import load_network, recognise
from deploykit.recipe import load_recipe

PARTS = {
    "backbone": 190_520,
    "decode_head.neck": 35_568,
    "decode_head.fuse4": 7_544,
    "decode_head.conv_seg": 98,
    "decode_head.conv": 13_921,
    "auxiliary_head": 41_762,
}


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture(scope="module")
def network() -> MobileNetV3Sappm:
    torch.manual_seed(0)
    return MobileNetV3Sappm().eval()


class PaperCost(TorchFunctionMode):
    """Counts as the paper's tool does: by calls of functions, each with its own rule."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self._inside = False

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if self._inside:
            return func(*args, **(kwargs or {}))
        self._inside = True
        try:
            out = func(*args, **(kwargs or {}))
        finally:
            self._inside = False
        match func.__name__:
            case "conv2d":
                self.counts["conv2d"] += args[1][0].numel() * out.numel()
            case "batch_norm":
                self.counts["batch_norm"] += 2 * out.numel()
            case "adaptive_avg_pool2d":
                self.counts["adaptive_avg_pool2d"] += args[0].numel()
            case "interpolate" | "grid_sample":
                self.counts[func.__name__] += 4 * out.numel()
        return out


@pytest.mark.parametrize("part", PARTS)
def test_parameters_of_each_part(network, part):
    assert parameters(network.get_submodule(part)) == PARTS[part]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, 247_651 + 41_762),
        ({"auxiliary_head": False}, 247_651),
        ({"auxiliary_head": False, "boundary_head": False}, 233_730),
    ],
)
def test_parameters_of_each_variant(arguments, expected):
    with torch.device("meta"):
        assert parameters(MobileNetV3Sappm(**arguments)) == expected


@pytest.mark.parametrize(("size", "expected"), [(512, 709_248_192), (224, 135_874_752)])
def test_cost_as_the_paper_counts_it(size, expected):
    deployed = MobileNetV3Sappm(boundary_head=False, auxiliary_head=False).eval()
    with PaperCost() as cost, torch.no_grad():
        deployed(torch.zeros(1, 3, size, size))
    # The last interpolation, by four to the size of the input, lies outside the network that the paper counted.
    assert cost.counts.total() - 4 * 2 * size**2 == expected


def test_the_outputs_have_the_size_of_the_input_whatever_it_is(network):
    for height, width in ((64, 96), (97, 131), (33, 40)):
        with torch.no_grad():
            logits, boundary, auxiliary = network(torch.randn(1, 3, height, width))
        assert logits.shape == auxiliary.shape == (1, 2, height, width)
        assert boundary.shape == (1, 1, height, width)


def test_the_heads_of_training_do_not_reach_the_logits(network):
    x = torch.randn(1, 3, 64, 64)
    bare = MobileNetV3Sappm(boundary_head=False, auxiliary_head=False).eval()
    state = {key: value for key, value in network.state_dict().items() if not key.startswith("auxiliary_head.")}
    bare.load_state_dict({key: value for key, value in state.items() if not key.startswith("decode_head.conv.")})
    with torch.no_grad():
        assert torch.equal(bare(x), network(x)[0])
        assert MobileNetV3Sappm(classes=3).eval()(x)[2].shape == (1, 3, 64, 64)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "dilation", "expected"),
    [
        # TensorFlow's documented rule, by hand: even sizes pad one more after, odd ones equally.
        (224, 3, 2, 1, (0, 1)),
        (225, 3, 2, 1, (1, 1)),
        (7, 5, 2, 1, (2, 2)),
        (8, 5, 2, 1, (1, 2)),
        (28, 5, 1, 2, (4, 4)),
        (4, 1, 2, 1, (0, 0)),
        (1, 3, 2, 1, (1, 1)),
    ],
)
def test_same_padding(size, kernel, stride, dilation, expected):
    assert same_padding(size, kernel, stride, dilation) == expected


@pytest.mark.parametrize("size", [8, 9])
def test_a_same_convolution_sees_the_pixels_that_tensorflow_sees(size):
    """Of an even size the first window begins at the first pixel, of an odd one before it; torch's padding cannot."""
    conv = SamePadConv2d(1, 1, 3, stride=2, bias=False)
    nn.init.ones_(conv.weight)
    x = torch.arange(1.0, size + 1).expand(1, 1, size, size)
    out = conv(x)[0, 0, 1]
    first = 1 + 2 + 3 if size % 2 == 0 else 1 + 2
    assert out.shape == (-(-size // 2),)
    assert out[0] == 3 * first
    symmetric = F.conv2d(x, conv.weight, stride=2, padding=1)[0, 0, 1]
    assert torch.equal(out, symmetric) == bool(size % 2)


def test_the_flow_moves_samples_in_half_pixels_and_finds_zeros_outside():
    x = torch.arange(25.0).reshape(1, 1, 5, 5)
    still = torch.zeros(1, 2, 5, 5)
    assert (warp(x, still) - x).abs().max() < 1e-5
    # Five pixels span four steps: a flow of 2.5 along x is one pixel to the right.
    right = still.clone()
    right[:, 0] = 2.5
    assert (warp(x, right)[..., :4] - x[..., 1:]).abs().max() < 1e-5
    assert warp(x, right)[..., 4].abs().max() < 1e-4
    down = still.clone()
    down[:, 1] = 2.5
    assert (warp(x, down)[..., :4, :] - x[..., 1:, :]).abs().max() < 1e-5


def test_coordinates_stay_exact_where_features_are_half():
    x = torch.linspace(0, 1, 128).expand(1, 1, 4, 128)
    flow = torch.zeros(1, 2, 4, 128, dtype=torch.bfloat16)
    assert (warp(x, flow) - x).abs().max() < 1e-5


def public_shapes(shared_cases, listed: bool) -> dict[str, tuple[int, ...]]:
    """Key → shape of a public checkpoint: with the auxiliary head in a list, or bare."""
    lines = (shared_cases.parent / "facts" / "state_dict_keys" / "sappm_prml_keys.txt").read_text("utf-8").splitlines()
    pairs = (line.split(" ", 1) for line in lines)
    return {
        key if listed else key.replace("auxiliary_head.0.", "auxiliary_head."): tuple(
            int(size) for size in shape.strip("() ").split(",") if size.strip()
        )
        for key, shape in pairs
    }


def framework_of(path) -> dict[str, ModuleType]:
    """The module that the public files need, with a class that writes a marker file when it is unpickled."""

    class HistoryBuffer:
        def __reduce__(self):
            return (type(self), (), {"marker": path.with_suffix(".marker")})

        def __setstate__(self, state) -> None:
            state["marker"].write_text("executed", "utf-8")

    framework = ModuleType("training_framework")
    framework.HistoryBuffer = HistoryBuffer
    HistoryBuffer.__module__, HistoryBuffer.__qualname__ = "training_framework", "HistoryBuffer"
    return {"training_framework": framework}


def public_file(path, shapes) -> dict[str, torch.Tensor]:
    """Write a file as the public framework saves one: meta, weights, and a log of objects of its own class."""
    generator = torch.Generator().manual_seed(1)
    state = {
        key: torch.tensor(1200) if key.endswith("num_batches_tracked") else torch.rand(shape, generator=generator)
        for key, shape in shapes.items()
    }
    with patch.dict(sys.modules, framework_of(path)):
        log = sys.modules["training_framework"].HistoryBuffer()
        hub = {"log_scalars": {"train/loss": log}, "runtime_info": {"iter": 12000}, "resumed_keys": {}}
        torch.save({"meta": {"epoch": 0, "seed": 304}, "state_dict": state, "message_hub": hub}, path)
    return state


@pytest.mark.parametrize("listed", [True, False])
def test_both_public_layouts_are_recognised_and_load_strictly(shared_cases, tmp_path, listed):
    path = tmp_path / "best.pth"
    state = public_file(path, public_shapes(shared_cases, listed))
    assert len(state) == 247
    read = read_checkpoint(path)
    assert "training_framework" not in sys.modules
    assert any("HistoryBuffer" in note for note in read.notes)
    recipe = recognise(read)
    assert recipe.name == "mobilenetv3-sappm"
    loaded = load_network(recipe, checkpoint=path)
    assert not path.with_suffix(".marker").exists()
    own = loaded.module.state_dict()
    assert all(torch.equal(own[key.replace("_head.0.", "_head.")], value) for key, value in state.items())
    assert len(own) == len(state)
    assert not any("key map" in note for note in loaded.notes)


def test_the_public_file_is_one_that_torch_refuses(tmp_path):
    path = tmp_path / "best.pth"
    public_file(path, {"backbone.layer0.conv.weight": (16, 3, 3, 3)})
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    # The twin: an unpickler that can import the class runs its code.
    with patch.dict(sys.modules, framework_of(path)):
        torch.load(path, weights_only=False)
    assert path.with_suffix(".marker").read_text("utf-8") == "executed"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda shapes: shapes.pop("decode_head.conv.2.bias"), "1 missing: decode_head.conv.2.bias"),
        (lambda shapes: shapes.update({"backbone.layer0.conv.weight": (16, 4, 3, 3)}), "1 wrong shape"),
        (lambda shapes: shapes.update({"auxiliary_head.1.conv_seg.bias": (2,)}), "1 unexpected: auxiliary_head.1"),
    ],
    ids=["one less", "four channels", "two auxiliary heads"],
)
def test_one_key_off_does_not_load(shared_cases, tmp_path, change, message):
    shapes = public_shapes(shared_cases, listed=True)
    change(shapes)
    public_file(tmp_path / "best.pth", shapes)
    with pytest.raises(CheckpointError, match=message):
        load_network(load_recipe("mobilenetv3-sappm"), checkpoint=tmp_path / "best.pth")

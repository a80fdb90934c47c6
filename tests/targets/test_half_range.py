"""Networks that half precision cannot hold: what is swept stays in float32 and is named, and the masks survive."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from network_files import write_network
from torch import nn

from deploykit import api
from deploykit.artifact import MANIFEST, read_artifact
from deploykit.errors import VerificationError
from deploykit.lowering import ExportOptions
from deploykit.pipeline import Exporter, compare_values, prepare_export
from deploykit.quantize import half_range
from deploykit.quantize.half_range import HalfRange
from deploykit.targets.table import part
from deploykit.targets.traced import Arithmetic
from deploykit.verify.samples import draw_samples, feed
from deploykit.vocab import Precision, Target

NETWORK = '''
from torch import nn
import torch.nn.functional as F


class Chain(nn.Module):
    """Scores of a chain of convolutions with a ReLU between each."""

    def __init__(self, length):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.links = nn.ModuleList([nn.Conv2d(8, 8, 1) for _ in range(length)])
        self.last = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        x = F.relu(self.stem(x))
        for link in self.links:
            x = F.relu(link(x))
        return self.last(x)


class Pooled(Chain):
    """The same, times the root mean square of each channel: squares are beyond half precision, the root is not."""

    def forward(self, x):
        x = F.relu(self.stem(x))
        for link in self.links:
            x = F.relu(link(x))
        return self.last(x * (x * x).mean((2, 3), keepdim=True).sqrt())
'''
RECIPE = """
format_version = 1
name = "chain"
description = "a chain of this test"
license = "Apache-2.0"
source = "this test"

[network]
factory = "half_networks.nets:{factory}"
arguments = {{ {arguments} }}

[[inputs]]
name = "photo"
shape = [1, 3, 32, 32]
mean = [104.0, 117.0, 123.0]
scale = [0.017, 0.018, 0.019]
source = "this test"

[[outputs]]
name = "scores"
meaning = "one score per class"
classes = ["background", "person"]

[checkpoint]
path = "chain.pt"

[tolerances.fp16]
relative_l2 = 1e-2
mask_agreement = 0.99
reason = "half precision keeps 11 bits per value"
"""
# What the weights of each link and of the last convolution are multiplied by, and what is said of which module.
CASES = {
    "clean": ("Chain", (1.0, 1.0), 1.0, {}),
    "large values": ("Chain", (1e3, 1e3, 1e-3, 1e-3), 1.0, {"links.1": "values up to"}),
    "large scores": ("Chain", (1.0,), 1e5, {"last": "values up to"}),
    "tiny values": ("Chain", (1e-3, 1e-3, 1e-3, 1e3, 1e3, 1e3), 1.0, {"links.2": "values of at most"}),
    "tiny weights": ("Chain", (1e3, 1e-6, 1e3), 1.0, {"links.1": "weights of at most"}),
    "large weights": ("Chain", (1e6, 1e-6), 1.0, {"links.0": "weights up to", "links.1": "weights of at most"}),
    "large squares": ("Pooled", (400.0,), 1e-3, {"(root)": "values up to"}),
}
IN_WEIGHTS = ("tiny weights", "large weights")
COMPUTING = (Target.ONNX, Target.COREML, Target.COREAI)
FP16 = ExportOptions(precision=Precision.FP16)
FULL = pytest.mark.full
# One fault of each target is run by make test, each fault once.
PLAIN = {
    (Target.ONNX, "tiny weights"),
    (Target.COREML, "tiny values"),
    (Target.TFLITE, "large weights"),
    (Target.COREAI, "large squares"),
}
FAULTS = [
    pytest.param(target, name, marks=() if (target, name) in PLAIN else FULL)
    for target in Target
    for name in CASES
    if CASES[name][-1]
]


def write_case(folder: Path, name: str) -> Path:
    """Write the network, its checkpoint and its recipe into ``folder``; return the recipe."""
    factory, factors, last, _ = CASES[name]

    def weigh(network: nn.Module) -> None:
        generator = torch.Generator().manual_seed(1)
        for module, factor in zip((network.stem, *network.links, network.last), (1.0, *factors, last), strict=True):
            assert isinstance(module, nn.Conv2d)
            module.weight.data.normal_(0, (2 / module.weight[0].numel()) ** 0.5, generator=generator).mul_(factor)
            module.bias.data.zero_()

    text = RECIPE.format(factory=factory, arguments=f"length = {len(factors)}")
    return write_network(folder, "half_networks", NETWORK, text, weigh)


@pytest.fixture(scope="module")
def exporter(tmp_path_factory) -> Callable[[str], Exporter]:
    @cache
    def of(name: str) -> Exporter:
        network = api.load(write_case(tmp_path_factory.mktemp("chain"), name))
        return prepare_export(network, draw_samples(network.recipe, portraits=2))

    return of


def refused(exporter: Exporter, target: Target, folder: Path) -> bool:
    """Return whether an fp16 file loses what the checkpoint gives.

    ONNX Runtime computes half precision in float32 on a CPU, and rounds where it likes: the file is run by the
    reference executor, which rounds every value, as accelerators do.
    """
    try:
        artifact = exporter.write(target, FP16, folder)
    except VerificationError:
        return True
    if target is not Target.ONNX:
        return False
    recipe, measured = exporter.network.recipe, []
    for sample in exporter.samples:
        given = feed(sample, artifact.inputs, recipe)
        values = part(target, "traced").trace(artifact.path, given, Arithmetic.REFERENCE).values
        measured.append({one.output: one.value for one in values if one.output})
    found = compare_values(measured, recipe, artifact.plan, exporter.samples, exporter.reference)
    return not all(one.passed for one in found)


@pytest.mark.parametrize(("target", "name"), FAULTS)
def test_what_half_precision_cannot_hold_stays_in_float32_and_is_named(exporter, target, name, tmp_path, monkeypatch):
    own = exporter(name)
    said = CASES[name][-1] if target in COMPUTING or name in IN_WEIGHTS else {}
    assert not refused(own, target, tmp_path)
    (manifest,) = tmp_path.rglob(MANIFEST)
    artifact = read_artifact(manifest)
    notes = [note for note in artifact.lint if "stays in float32" in note]
    for module, why in said.items():
        assert any(note.startswith(f"{module} (") and why in note for note in notes), notes
    assert bool(notes) is bool(said)
    weights = {one.dtype: one.size_bytes for one in part(target, "inspection").read_contents(artifact.path).weights}
    assert weights.get("float16", 0) > 400
    monkeypatch.setattr(half_range, "sweep", lambda graph, images: HalfRange())
    assert refused(own, target, tmp_path / "without") is bool(said)


@pytest.mark.parametrize("target", [pytest.param(one, marks=() if one is Target.ONNX else FULL) for one in Target])
def test_a_clean_network_is_half_throughout(exporter, target, tmp_path, monkeypatch):
    swept = exporter("clean").write(target, FP16, tmp_path)
    assert not [note for note in swept.lint if "stays in float32" in note]
    monkeypatch.setattr(half_range, "sweep", lambda graph, images: HalfRange())
    assert exporter("clean").write(target, FP16, tmp_path / "without").content_hash == swept.content_hash


def test_a_float32_file_is_not_swept(exporter, tmp_path, monkeypatch):
    monkeypatch.delattr(half_range, "sweep")
    assert exporter("large values").write(Target.ONNX, ExportOptions(), tmp_path).comparisons[0].passed

"""A small network with its recipe, its files on every target, and files of it with faults planted in their bytes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from deploykit import api
from deploykit.artifact import MANIFEST
from deploykit.chatter import contained
from deploykit.lowering import ExportOptions
from deploykit.network import LoadedNetwork, build_network
from deploykit.pipeline import Exporter, prepare_export
from deploykit.recipe import Recipe, load_recipe
from deploykit.records import Artifact
from deploykit.verify.samples import draw_samples
from deploykit.vocab import FLOAT_PRECISIONS, Target

HEIGHT, WIDTH = 48, 64
NETWORK = '''
import torch
import torch.nn.functional as F
from torch import nn


def conv_bn(c, k, kernel, **options):
    return nn.Sequential(nn.Conv2d(c, k, kernel, bias=False, **options), nn.BatchNorm2d(k))


class Plain(nn.Module):
    """Scores of two classes at the size of the input."""

    def __init__(self):
        super().__init__()
        self.stem = conv_bn(3, 8, 3, stride=2, padding=1)
        self.depthwise = conv_bn(8, 8, 3, padding=1, groups=8)
        self.wide = conv_bn(8, 12, 1)
        self.last = nn.Conv2d(12, 2, 1)

    def features(self, x):
        return F.relu(self.wide(F.relu(self.depthwise(F.relu(self.stem(x))))))

    def forward(self, x):
        return F.interpolate(self.last(self.features(x)), scale_factor=2, mode="bilinear", align_corners=False)


class WithPrior(Plain):
    """A second input of one channel, and an edge map of one channel as a second output."""

    def __init__(self):
        super().__init__()
        self.edge = nn.Conv2d(12, 1, 1)

    def forward(self, x, prior):
        return super().forward(x) + 0.5 * prior, self.edge(self.features(x))


class TwoAlike(Plain):
    """Two inputs and two outputs that nothing but their names tells apart."""

    def forward(self, x, y):
        first = super().forward(x)
        return first, first + 0.1 * super().forward(y)
'''
RECIPE = """
format_version = 1
name = "plain"
description = "a network of this test"
license = "Apache-2.0"
source = "this test"

[network]
factory = "verified_networks.nets:{factory}"

[[inputs]]
name = "photo"
shape = [1, 3, {height}, {width}]
color_order = "bgr"
mean = [104.0, 117.0, 123.0]
scale = [0.017, 0.0195, 0.0221]
source = "this test"
{inputs}
[[outputs]]
name = "scores"
meaning = "one score per class"
classes = ["background", "person"]
{outputs}
[checkpoint]
path = "plain.pt"

[tolerances.fp32]
max_abs_error = 1e-4
wrong_pixels = 0
reason = "runtimes sum in another order than PyTorch, in the same float32"

[tolerances.fp16]
max_abs_error = 0.05
relative_l2 = 5e-3
reason = "half precision keeps 11 bits per value"
"""
PRIOR = """
[[inputs]]
name = "prior"
kind = "tensor"
shape = [1, 1, {height}, {width}]
value_range = [-1.0, 1.0]
source = "this test"
"""
EDGE = """
[[outputs]]
name = "edge"
meaning = "edges"
"""
SECOND = """
[[inputs]]
name = "second"
shape = [1, 3, {height}, {width}]
source = "this test"
"""
OTHER = """
[[outputs]]
name = "other"
meaning = "one score per class"
classes = ["background", "person"]
"""


def write_case(folder: Path, factory: str = "Plain", seed: int = 0) -> Path:
    """Write the networks, a checkpoint with random statistics and the recipe into ``folder``; return the recipe."""
    package = folder / "verified_networks"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("", "utf-8")
    (package / "nets.py").write_text(NETWORK, "utf-8")
    size = {"height": HEIGHT, "width": WIDTH}
    inputs = {"WithPrior": PRIOR.format(**size), "TwoAlike": SECOND.format(**size)}.get(factory, "")
    outputs = {"WithPrior": EDGE, "TwoAlike": OTHER}.get(factory, "")
    recipe = folder / "plain.toml"
    recipe.write_text(RECIPE.format(factory=factory, inputs=inputs, outputs=outputs, **size), "utf-8")
    network = build_network(load_recipe(recipe))
    randomize(network, seed)
    torch.save(network.state_dict(), folder / "plain.pt")
    return recipe


def randomize(network: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.5, generator=generator)
            module.running_var.uniform_(0.3, 2.0, generator=generator)
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.5, generator=generator)
        elif isinstance(module, nn.Conv2d):
            fan_in = module.weight[0].numel()
            module.weight.data.normal_(0, (2 / fan_in) ** 0.5, generator=generator)


@dataclass(frozen=True)
class Case:
    """A recipe with its checkpoint, ready to be exported."""

    recipe_path: Path
    network: LoadedNetwork
    exporter: Exporter

    @property
    def recipe(self) -> Recipe:
        return self.network.recipe

    @property
    def checkpoint(self) -> Path:
        return self.recipe_path.parent / "plain.pt"

    def write(self, target: Target, folder: Path, options: ExportOptions | None = None) -> Artifact:
        return self.exporter.write(target, options or ExportOptions(), folder)

    def mistaken(self, *, flipped: bool = False, **changes: object) -> Exporter:
        """Return an exporter of the same network with another first input in its recipe, whatever comes of it.

        ``flipped`` exchanges the channels of every pixel before that: the first weights read them in reverse.
        """
        first, *others = self.recipe.file.inputs
        changed = first.model_copy(update=changes)
        if flipped:
            changed = changed.model_copy(update={"mean": changed.mean[::-1], "scale": changed.scale[::-1]})
        sections = self.recipe.file.tolerances
        free = {"max_abs_error": 1e30, "relative_l2": 1e30, "wrong_pixels": None, "mask_agreement": None}
        loose = sections.model_copy(
            update={p.value: getattr(sections, p.value).model_copy(update=free) for p in FLOAT_PRECISIONS}
        )
        file = self.recipe.file.model_copy(update={"inputs": (changed, *others), "tolerances": loose})
        training = self.exporter.training.copy()
        if flipped:
            stem = next(w for w in training.module.state_dict().values() if tuple(w.shape[1:]) == (3, 3, 3))
            stem.copy_(stem.flip(1))
        network = replace(self.network, recipe=replace(self.recipe, file=file))
        return replace(self.exporter, network=network, training=training)


def prepared(folder: Path, factory: str = "Plain") -> Case:
    recipe = write_case(folder, factory)
    network = api.load(recipe)
    return Case(recipe, network, prepare_export(network, draw_samples(network.recipe, portraits=1)))


def bare(artifact: Artifact, folder: Path) -> Path:
    """Return a copy of the file of ``artifact`` in ``folder``, without its manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / artifact.path.name
    if artifact.path.is_dir():
        shutil.copytree(artifact.path, path)
    else:
        shutil.copy(artifact.path, path)
    return path


def copied(artifact: Artifact, folder: Path) -> Path:
    """Return a copy of the folder of ``artifact``, its manifest included; the path is that of the file."""
    shutil.copytree(artifact.path.parent, folder)
    assert (folder / MANIFEST).is_file()
    return folder / artifact.path.name


def replace_weight(path: Path, weight: np.ndarray, new: np.ndarray) -> None:
    """Put ``new`` in the place of ``weight`` (out, in, h, w) in the bytes of the file or package."""
    for place in [path] if path.is_file() else sorted(path.rglob("*")):
        if not place.is_file():
            continue
        found = place.read_bytes()
        # TFLite keeps (out, h, w, in), and (1, h, w, out) for a depthwise convolution.
        for axes in ((0, 1, 2, 3), (0, 2, 3, 1), (1, 2, 3, 0)):
            old_bytes, new_bytes = (np.ascontiguousarray(a.transpose(axes)).tobytes() for a in (weight, new))
            if found.count(old_bytes) == 1:
                place.write_bytes(found.replace(old_bytes, new_bytes))
                return
    raise AssertionError(f"the weight is not in {path}")


def weight_of(case: Case, name: str) -> np.ndarray:
    """Return the float32 weight that every file has for the convolution ``name`` without a BatchNorm."""
    weight = dict(case.network.module.named_parameters())[f"{name}.weight"]
    return weight.detach().numpy().astype(np.float32)


def convert(target: Target, module: nn.Module, example: tuple[torch.Tensor, ...], path: Path, **names: Any) -> Path:
    """Write ``module`` with the target's own converter, as somebody without deploykit would; return ``path``."""
    module.eval()
    with contained():
        _CONVERTERS[target](module, example, path, **names)
    return path


def _onnx(module: nn.Module, example: tuple[torch.Tensor, ...], path: Path, **names: Any) -> None:
    torch.onnx.export(module, example, str(path), dynamo=True, external_data=False, verbose=False, **names)


def _coreml(module: nn.Module, example: tuple[torch.Tensor, ...], path: Path, **names: Any) -> None:
    import coremltools as ct

    program = torch.export.export(module, example, strict=False).run_decompositions({})
    ct.convert(program, compute_precision=ct.precision.FLOAT32, skip_model_load=True, **names).save(str(path))


def _tflite(module: nn.Module, example: tuple[torch.Tensor, ...], path: Path) -> None:
    import litert_torch

    litert_torch.convert(module, example).export(str(path))


_CONVERTERS: dict[Target, Callable[..., None]] = {
    Target.ONNX: _onnx,
    Target.COREML: _coreml,
    Target.TFLITE: _tflite,
}
SUFFIXES = {Target.ONNX: ".onnx", Target.COREML: ".mlpackage", Target.TFLITE: ".tflite"}

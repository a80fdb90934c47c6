"""A network with every kind of layer that a fault is planted in, its files, and what the command has to say of them.

``prepare`` captures the network once, ``write`` writes a file of it, a test edits the file with its format's own
means, and ``accused_by`` returns what is accused. ``weight`` finds the constant of a file by the values of a layer.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from network_files import write_network
from numpy.typing import NDArray
from targets.small_case import randomize

from deploykit.attribution import Attribution, attribute
from deploykit.chatter import contained
from deploykit.description import describe
from deploykit.graph.capture import weights
from deploykit.graph.graph import Graph
from deploykit.lowering import ExportOptions, lower, lower_exactly, plan_export
from deploykit.network import LoadedNetwork, load_network
from deploykit.recipe import load_recipe
from deploykit.records import ExportPlan
from deploykit.targets.base import ExportRequest
from deploykit.targets.table import TARGETS, part
from deploykit.verify.reparam import deploy_graph, training_graph
from deploykit.verify.samples import Sample, draw_samples
from deploykit.vocab import Target

NETWORK = '''
import torch
import torch.nn.functional as F
from torch import nn


def conv_bn(c, k, kernel, **options):
    return nn.Sequential(nn.Conv2d(c, k, kernel, bias=False, **options), nn.BatchNorm2d(k))


class Residual(nn.Module):
    """A sum that no convolution can take in: a PReLU stands in between."""

    def __init__(self, c):
        super().__init__()
        self.conv, self.slope = conv_bn(c, c, 3, padding=1), nn.PReLU(c)

    def forward(self, x):
        return x + self.slope(self.conv(x))


class Join(nn.Module):
    def forward(self, x, y):
        return torch.cat([x, y], 1)


class Gate(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(c, c // 2, 1), nn.Conv2d(c // 2, c, 1)

    def forward(self, x):
        return x * torch.sigmoid(self.expand(F.relu(self.reduce(x.mean((2, 3), keepdim=True)))))


class Faulty(nn.Module):
    """Sound itself; faults are planted in its files."""

    def __init__(self, classes=2):
        super().__init__()
        self.stem = conv_bn(3, 8, 3, stride=2, padding=1)
        self.depthwise = conv_bn(8, 8, 3, padding=1, groups=8)
        self.slope = nn.PReLU(8)
        self.pointwise = conv_bn(8, 16, 1)
        self.residual = Residual(16)
        self.dilated = conv_bn(16, 16, 3, padding=2, dilation=2)
        self.average = nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False)
        self.gate = Gate(16)
        self.larger = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.aligned = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.join = Join()
        self.norm = nn.BatchNorm2d(32)
        self.leaky = nn.LeakyReLU(0.1)
        self.transposed = nn.ConvTranspose2d(32, 8, 4, stride=2, padding=1)
        self.head = nn.Conv2d(8, classes, 1)

    def forward(self, photo):
        half = self.slope(self.depthwise(F.relu(self.stem(photo))))
        wide = F.relu(self.pointwise(half))
        deep = self.gate(self.average(F.relu(self.dilated(self.residual(wide)))))
        joined = self.leaky(self.norm(self.join(wide, self.larger(deep))))
        return self.head(F.relu(self.transposed(joined))) + self.aligned(half[:, :2])
'''

RECIPE = """
format_version = 1
name = "faulty"
description = "a small network of this test"
license = "Apache-2.0"
source = "this test"

[network]
factory = "faulty_networks.nets:Faulty"

[[inputs]]
name = "photo"
shape = [1, 3, 32, 48]
color_order = "bgr"
mean = [104.0, 117.0, 123.0]
scale = [0.017, 0.018, 0.019]
source = "this test"

[[outputs]]
name = "scores"
meaning = "one score per class"
classes = ["background", "person"]

[checkpoint]
path = "faulty.pt"

[tolerances.fp32]
max_abs_error = 2e-4
relative_l2 = 1e-5
reason = "runtimes sum in another order than PyTorch, in the same float32"

[tolerances.fp16]
relative_l2 = 1e-2
reason = "half precision keeps 11 bits per value and the errors of all layers add up"
"""


def _one_weight(array: NDArray[Any]) -> NDArray[Any]:
    """Return the array with its largest value 5 % larger."""
    changed = array.copy()
    changed.flat[np.abs(changed).argmax()] *= array.dtype.type(1.05)
    return changed


CHANGES: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "scaled": lambda array: array * array.dtype.type(1.03),
    "shifted": lambda array: array + array.dtype.type(0.02),
    "one weight": _one_weight,
    "channels swapped": lambda array: array[[1, 0, *range(2, len(array))]],
    "inputs swapped": lambda array: array[:, [1, 0, *range(2, array.shape[1])]],
}


@dataclass(frozen=True)
class Case:
    """A network captured and simplified once, and the samples that its files are run on."""

    network: LoadedNetwork
    deploy: Graph
    samples: tuple[Sample, ...]


def write_recipe(folder: Path) -> Path:
    """Write the network above, a checkpoint with random statistics and the recipe into ``folder``."""
    return write_network(folder, "faulty_networks", NETWORK, RECIPE, randomize)


@cache
def prepare(recipe: str | Path, checkpoint: Path | None = None) -> Case:
    """Return the network of ``recipe``, kept for all tests of one process."""
    read = load_recipe(recipe)
    network = load_network(read, checkpoint=checkpoint)
    deploy = deploy_graph(training_graph(network), read)
    return Case(network, deploy, draw_samples(read, noise=1, portraits=0))


def write(case: Case, target: Target, folder: Path, options: ExportOptions | None = None) -> tuple[Path, ExportPlan]:
    """Write a file of ``case`` into ``folder``, unverified and without a manifest; return it with its plan."""
    recipe = case.network.recipe
    plan = plan_export(recipe, target, options or ExportOptions())
    path = folder / f"{recipe.name}{TARGETS[target].suffix}"
    request = ExportRequest(lower(case.deploy, recipe, plan), plan, recipe, describe(case.network, plan))
    with contained():
        part(target, "export").write(request, path)
    return path, plan


def copied(path: Path, folder: Path) -> Path:
    """Return a copy of a file or package in ``folder``, for a fault to be planted in."""
    folder.mkdir(parents=True, exist_ok=True)
    copy = folder / path.name
    shutil.copytree(path, copy) if path.is_dir() else shutil.copy2(path, copy)
    return copy


def lowered(case: Case, plan: ExportPlan) -> Case:
    """Return ``case`` with the graph that a file of ``plan`` was written from: where to look for rewritten weights."""
    return replace(case, deploy=lower_exactly(case.deploy, case.network.recipe, plan))


def weight(case: Case, module: str, leaf: str = "weight") -> NDArray[np.float64]:
    """Return a weight of ``module`` as the graph has it: (out, in per group, kh, kw), BatchNorm folded.

    A BatchNorm that no layer took in is a scale and a shift in a lowered graph.
    """
    found = weights(case.deploy)
    own = (f"{module}.{leaf}", f"{module}.affine.{leaf}")
    names = [name for name in found if name in own or name.startswith(f"{module}.{leaf}_")]
    assert len(names) == 1, (module, leaf, sorted(found))
    return found[names[0]].numpy()


def same_values(constant: NDArray[np.generic], wanted: NDArray[np.float64]) -> bool:
    """Whether a constant of a file holds the values of ``wanted`` in whatever order of axes, rounded."""
    if constant.size != wanted.size or constant.dtype.kind != "f":
        return False
    tolerance = 1e-3 if constant.dtype == np.float16 else 1e-6
    ours, theirs = np.sort(wanted.ravel()), np.sort(constant.ravel().astype(np.float64))
    return bool(np.abs(ours - theirs).max() <= tolerance * np.abs(ours).max())


def attributed(case: Case, path: Path, plan: ExportPlan | None = None, **options: object) -> Attribution:
    """Return what ``deploykit verify --layers`` finds in the file at ``path``."""
    return attribute(case.network, path, case.samples, plan, captured=case.deploy, **options)  # type: ignore[arg-type]


def assert_clean(found: Attribution) -> None:
    """Assert that no module is accused, and that most of the file was looked at."""
    assert found.passed, found.sentence
    assert "No layer is accused" in found.sentence
    assert found.matched > 0.5 * (found.matched + found.unmatched), (found.matched, found.unmatched)


def assert_named(found: Attribution, module: str, also: tuple[str, ...] = ()) -> None:
    """Assert that ``module`` is accused and named, and nothing but what is ``also`` allowed is accused beside it.

    A file may hold no value between a layer and the next: then both are named, joined.
    """
    assert not found.passed, found.sentence
    named: Mapping[str, tuple[str, ...]] = {row.module: row.joined for row in found.accused}
    first = found.accused[0]
    assert module in (first.module, *first.joined), (module, found.sentence, named)
    assert module in found.sentence, found.sentence
    assert len(first.joined) <= 3, first.joined
    assert set(named) <= {first.module, *also}, named

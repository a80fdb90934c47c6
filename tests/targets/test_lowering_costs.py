"""The forms of each target are those that its measured costs choose, and its files with them compute the same."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from deploykit import lowering
from deploykit.chatter import contained
from deploykit.graph.capture import capture, cast_graph
from deploykit.graph.graph import Graph
from deploykit.recipe import recipe_from_table
from deploykit.records import ExportPlan
from deploykit.resources import bundled
from deploykit.targets import lowering_costs as costs
from deploykit.targets.base import ExportRequest
from deploykit.targets.table import TARGETS, part
from deploykit.vocab import InputKind, Layout, OutputKind, Precision, Target, TensorSpec

# deploykit/graph/optimize.py runs it for every target.
EVERYWHERE = "two_class_softmax"
# They take operations or numbers away: there is no form to choose.
LESS = {"transpose_pairs", "constants_along_axes"}
SHAPE = (1, 3, 32, 32)
WIDE = 24


@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize("target", Target)
def test_the_forms_of_a_target_are_those_that_its_costs_choose(target, precision):
    names = {form.__name__ for form in lowering._forms(target, precision)} | set(lowering.on_files(target))
    rows = {entry.precision for entry in costs.table() if entry.target is target}
    if precision not in rows:
        # Core ML and Core AI are counted in half precision only: their files hold the same operations in both.
        # A file with integers is made of one in single precision.
        precision = Precision.FP32 if Precision.FP32 in rows else Precision.FP16
    assert costs.chosen_passes(target, precision) - {EVERYWHERE} == names - LESS


def test_every_entry_has_a_figure_or_says_that_it_has_none():
    entries = costs.table()
    assert {entry.construct for entry in entries} == set(costs.CONSTRUCTS)
    assert len({(e.construct, e.target, e.precision, e.accelerator) for e in entries}) == len(entries)
    for entry in entries:
        measured = [cost for cost in entry.costs if cost.ratio is not None]
        assert entry.chosen.is_open_to(entry.target)
        assert bool(measured) is (entry.grounds != costs.UNMEASURED)
        if entry.grounds == costs.UNMEASURED:
            assert entry.accelerator != costs.CPU or entry.target in (Target.COREML, Target.COREAI)
    gpu = {entry.construct for entry in entries if entry.accelerator == "GPU delegate"}
    assert gpu == set(costs.CONSTRUCTS)


def test_what_is_chosen_is_worth_it_and_never_slower():
    for entry in costs.table():
        if entry.grounds == costs.UNMEASURED or entry.chosen.name == costs.PLAIN:
            continue
        (chosen,) = [cost for cost in entry.costs if cost.form == entry.chosen]
        assert chosen.ratio > costs.WORTH
        assert chosen.lowest >= costs.NEVER_BELOW
        assert all(
            cost.ratio <= chosen.ratio
            for cost in entry.costs
            if cost.ratio is not None and cost.form.is_open_to(entry.target) and cost.lowest >= costs.NEVER_BELOW
        )


def _record(rows: list[dict[str, object]], folder: Path) -> None:
    (folder / costs.FILE).parent.mkdir(parents=True)
    (folder / costs.FILE).write_text(json.dumps({"body": {"machine": "one", "rows": rows}}))


@pytest.mark.parametrize(
    ("low", "ratio", "chosen"),
    [(1.2, 1.3, "relu_sum"), (0.9, 1.3, costs.PLAIN), (1.01, 1.04, costs.PLAIN)],
)
def test_a_form_is_taken_only_where_it_pays_everywhere(low, ratio, chosen, tmp_path, monkeypatch):
    plain = {"operations": 1, "ratio": 1.0, "low": 1.0, "high": 1.0}
    good = {"operations": 4, "ratio": 1.4, "low": 1.3, "high": 1.5}
    other = {"operations": 4, "ratio": ratio, "low": low, "high": ratio + 0.1}
    unwritten = {"operations": 2, "ratio": 9.0, "low": 9.0, "high": 9.0}
    if chosen == costs.PLAIN and ratio < costs.WORTH:
        good = other
    row = {"construct": "PReLU of an image", "target": "tflite", "precision": "fp32"}
    cases = [{costs.PLAIN: plain, "relu_sum": one, "maximum": unwritten} for one in (good, other)]
    _record([{**row, "case": str(i), "forms": forms} for i, forms in enumerate(cases)], tmp_path)
    monkeypatch.setattr(costs, "bundled", lambda kind: tmp_path)
    measured, elsewhere = costs.table.__wrapped__()
    assert measured.chosen.name == chosen
    assert (elsewhere.chosen.name, elsewhere.grounds) == (costs.PLAIN, costs.UNMEASURED)


def test_the_figures_are_in_the_package():
    assert (bundled("benchmarks") / costs.FILE).is_file()


class _EveryForm(nn.Module):
    """Each construct that a form of some target stands for, small."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, WIDE, 3, padding=1), nn.PReLU(WIDE))
        self.depthwise = nn.ConvTranspose2d(WIDE, WIDE, 4, 2, 1, groups=WIDE)
        self.dense = nn.Sequential(nn.Conv2d(WIDE, 4, 3, stride=2, padding=1), nn.ConvTranspose2d(4, 4, 4, 2, 1))
        self.head = nn.Conv2d(4, 2, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        up = nn.functional.hardswish(self.depthwise(self.stem(x)))
        scores: torch.Tensor = self.head(self.dense(up))
        return scores


def _written(target: Target, graph: Graph, folder: Path) -> Path:
    row = TARGETS[target]
    plan = ExportPlan(
        target, Precision.FP32, Layout.NCHW, InputKind.TENSOR, OutputKind.LOGITS, (SHAPE,), (), row.default_opset
    )
    table = {
        "format_version": 1,
        "name": "forms",
        "description": "every form",
        "license": "Apache-2.0",
        "source": "a test",
        "network": {"factory": "deploykit.preflight:none"},
        "inputs": [{"name": "photo", "kind": "tensor", "shape": list(SHAPE), "source": "a test"}],
        "outputs": [{"name": "scores", "meaning": "scores"}],
        "tolerances": {one: {"relative_l2": 1e-2, "reason": "not judged by it"} for one in ("fp32", "fp16")},
    }
    path = folder / f"forms{row.suffix}"
    for rewrite in part(target, "lowering").PASSES:
        graph = rewrite(graph)
    request = ExportRequest(graph, plan, recipe_from_table(table, Path("forms.toml")), {"description": "forms"})
    with contained(), warnings.catch_warnings():
        # What converters warn about is their own code.
        warnings.simplefilter("ignore")
        part(target, "export").write(request, path)
    return path


@pytest.mark.parametrize(("target", "transposes"), [(Target.ONNX, 7), (Target.TFLITE, 5)])
def test_a_file_in_the_chosen_forms_computes_the_same(target, transposes, tmp_path):
    torch.manual_seed(0)
    network = _EveryForm().eval()
    spec = TensorSpec("photo", SHAPE, "float32", Layout.NCHW)
    plain = cast_graph(capture(network, [torch.zeros(SHAPE)], (spec,), ("scores",)), torch.float32)
    graph = plain
    for form in part(target, "lowering").FORMS:
        graph = form(graph)
        assert graph.reports[-1].fired, form.__name__
    x = torch.randn(SHAPE)
    expected = plain.run(x)[0].numpy()
    path = _written(target, graph, tmp_path)
    with part(target, "runtime").open_artifact(path, 1) as runtime:
        (found,) = runtime.run({"photo": x.numpy()}).values()
    assert np.linalg.norm(found - expected) <= 1e-5 * np.linalg.norm(expected)
    assert np.linalg.norm(found - expected[:, ::-1]) > 1e-2 * np.linalg.norm(expected)
    contents = part(target, "inspection").read_contents(path)
    assert not {"ConvTranspose", "TRANSPOSE_CONV", "DepthToSpace"} & set(contents.operations)
    # ONNX: three in the wide shuffle and two in each other one. TFLite: one a shuffle, and its input and output.
    assert contents.transposes == transposes

"""Every operator that converters find hard, exported to every target, run from disk and told from its mistake."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from itertools import product
from pathlib import Path

import pytest
import torch
from hard_networks import NETWORKS, SIZE, TOGETHER
from small_case import randomize

from deploykit import api
from deploykit.lowering import ExportOptions
from deploykit.network import build_network
from deploykit.pipeline import Exporter, prepare_export
from deploykit.recipe import Recipe, load_recipe
from deploykit.records import Artifact
from deploykit.verify.compare import compare
from deploykit.verify.reference import gather, reference_outputs
from deploykit.verify.samples import draw_samples
from deploykit.vocab import Precision, Target

RECIPE = """
format_version = 1
name = "hard"
description = "hard operators"
license = "Apache-2.0"
source = "this test"

[network]
factory = "hard_networks:{network}"
arguments = {{ mistaken = {mistaken} }}

[[inputs]]
name = "photo"
shape = [1, 3, {height}, {width}]
mean = [127.5]
scale = [0.0078125]
source = "this test"

[checkpoint]
path = "hard.pt"

[tolerances.fp32]
relative_l2 = 2e-6
reason = "three layers in float32; warping is worst: 8e-7 was measured"

[tolerances.fp16]
relative_l2 = 1e-2
reason = "three layers in half precision; warping is worst, since its positions are rounded too"
"""
OUTPUT = '\n[[outputs]]\nname = "{name}"\nmeaning = "three scores"\n'


def write_recipe(folder: Path, network: str, *, mistaken: bool = False) -> Recipe:
    """Write the recipe of ``network``, with one output for each network in it."""
    names = TOGETHER if network == "Together" else [network]
    text = RECIPE.format(network=network, mistaken=str(mistaken).lower(), height=SIZE[0], width=SIZE[1])
    path = folder / f"hard-{mistaken}.toml"
    path.write_text(text + "".join(OUTPUT.format(name=name.lower()) for name in names), "utf-8")
    return load_recipe(path)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Callable[[str], tuple[Exporter, Sequence[dict]]]:
    """Return the exporter of a network, and what the mistaken one gives for the same weights and samples."""

    @cache
    def case(network: str) -> tuple[Exporter, Sequence[dict]]:
        folder = tmp_path_factory.mktemp(network)
        recipe, wrong = (write_recipe(folder, network, mistaken=mistaken) for mistaken in (False, True))
        module = build_network(recipe)
        randomize(module)
        torch.save(module.state_dict(), folder / "hard.pt")
        samples = draw_samples(recipe)
        exporter = prepare_export(api.load(recipe), samples)
        return exporter, reference_outputs(api.load(wrong).module, wrong, samples)

    return case


def refuses_the_mistakes(artifact: Artifact, exporter: Exporter, mistaken: Sequence[dict]) -> None:
    """Assert that a file with the mistake of any of its operators would be far outside the tolerance."""
    for comparison in artifact.comparisons:
        truth = gather(exporter.reference, comparison.output)
        twin = compare(comparison.output, gather(mistaken, comparison.output), truth, comparison.tolerance)
        assert not twin.passed, comparison.output
        assert twin.relative_l2 > 3 * comparison.tolerance.relative_l2, comparison.output
        assert twin.relative_l2 > 30 * comparison.relative_l2, comparison.output


@pytest.mark.parametrize(
    "target", [pytest.param(one, marks=[] if one is Target.TFLITE else pytest.mark.full) for one in Target]
)
def test_one_file_computes_them_all(prepared, target, tmp_path):
    exporter, mistaken = prepared("Together")
    artifact = exporter.write(target, ExportOptions(), tmp_path)
    assert [comparison.output for comparison in artifact.comparisons] == [name.lower() for name in TOGETHER]
    assert artifact.passed
    refuses_the_mistakes(artifact, exporter, mistaken)


def _cells() -> list:
    """Return every operator alone in every format."""
    return [pytest.param(*cell, marks=pytest.mark.full) for cell in product(NETWORKS, Target, Precision)]


@pytest.mark.parametrize(("network", "target", "precision"), _cells())
def test_a_file_of_one_operator(prepared, network, target, precision, tmp_path):
    exporter, mistaken = prepared(network)
    artifact = exporter.write(target, ExportOptions(precision=precision), tmp_path)
    assert artifact.passed
    refuses_the_mistakes(artifact, exporter, mistaken)

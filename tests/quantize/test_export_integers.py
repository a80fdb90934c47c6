"""SINet in integers, end to end: chosen, written, run, judged, recorded; and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from deploykit import api, load_recipe
from deploykit.artifact import read_artifact
from deploykit.errors import VerificationError
from deploykit.lowering import ExportOptions
from deploykit.pipeline import Exporter, prepare_export
from deploykit.quantize import file as quantizing
from deploykit.quantize.calibration import CalibrationSet, calibration_set
from deploykit.records import Artifact
from deploykit.targets.quantized import Range
from deploykit.targets.schemes import precisions_of
from deploykit.targets.table import part
from deploykit.verify.samples import draw_samples, feed, read_back
from deploykit.vocab import Estimator, Precision, Target

SIDE = 96
FULL = pytest.mark.full
CHOSEN = ExportOptions(precision=Precision.INT8, estimator=Estimator.MSE, equalization=0.5, max_drop=1.5)
CELLS = [(target, precision) for target in Target for precision in precisions_of(target) if not precision.is_float]


@pytest.fixture(scope="module")
def exporter() -> Exporter:
    network = api.load(load_recipe("sinet").with_size(SIDE, SIDE))
    return prepare_export(network, draw_samples(network.recipe, noise=0))


@pytest.fixture(scope="module")
def calibration(exporter) -> CalibrationSet:
    return calibration_set(exporter.network.recipe, count=8)


@pytest.fixture(scope="module")
def written(exporter, calibration, tmp_path_factory) -> Callable[..., Artifact]:
    folder = tmp_path_factory.mktemp("integers")

    @cache
    def artifact(target: Target, options: ExportOptions) -> Artifact:
        named = options
        if not options.precision.is_float:
            named = replace(options, calibration=calibration.record.sha256)
        return exporter.write(target, named, folder, calibration=calibration)

    return artifact


def test_int8_is_made_judged_and_recorded(written, calibration):
    artifact = written(Target.ONNX, CHOSEN)
    made = artifact.quantization
    assert artifact.passed
    assert made.calibration == calibration.record
    assert (made.estimator, made.equalization) == (Estimator.MSE, 0.5)
    assert made.layers > 50
    assert made.corrected_biases > 50
    assert made.activations > 0
    assert made.weight_bytes < 0.45 * made.float_weight_bytes
    chosen = next(one for one in made.trades if one.kept == len(made.kept))
    assert chosen.drop_points <= 1.5
    assert all(one.drop_points > 1.5 for one in made.trades if one.kept < chosen.kept)
    # The costliest layers are kept first.
    alone = [one.alone_snr_db for one in made.kept]
    assert alone == sorted(alone)
    assert alone
    assert artifact.size_bytes < 0.75 * written(Target.ONNX, ExportOptions()).size_bytes
    assert read_artifact(artifact.path).quantization == made
    assert read_artifact(artifact.path).plan == artifact.plan


# That of small networks is held to the same bytes with their files, for every target.
@FULL
def test_the_same_images_give_the_same_bytes(exporter, calibration, written, tmp_path):
    first = written(Target.ONNX, CHOSEN)
    named = replace(CHOSEN, calibration=calibration.record.sha256)
    again = exporter.write(Target.ONNX, named, tmp_path, calibration=calibration)
    assert again.path.read_bytes() == first.path.read_bytes()


def test_a_limit_that_cannot_be_kept_leaves_nothing_behind(exporter, calibration, tmp_path):
    options = replace(CHOSEN, max_drop=0.0, calibration=calibration.record.sha256)
    with pytest.raises(VerificationError) as caught:
        exporter.write(Target.ONNX, options, tmp_path, calibration=calibration)
    assert "--max-drop" in str(caught.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.fixture
def weights_alone(calibration) -> ExportOptions:
    """Integers for weights alone, which may lose nothing."""
    return replace(
        CHOSEN, precision=Precision.INT8_WEIGHTS, estimator=None, equalization=None, max_drop=0.0,
        calibration=calibration.record.sha256,
    )  # fmt: skip


def test_weights_alone_are_held_to_the_limit_too(exporter, calibration, weights_alone, tmp_path):
    with pytest.raises(VerificationError, match="do not survive") as caught:
        exporter.write(Target.ONNX, weights_alone, tmp_path, calibration=calibration)
    assert "allow more with --max-drop" in str(caught.value)
    assert not list(tmp_path.rglob("*.onnx"))


@FULL
def test_weights_alone_have_one_trade(exporter, calibration, weights_alone, tmp_path):
    options = replace(weights_alone, max_drop=5.0)
    made = exporter.write(Target.ONNX, options, tmp_path, calibration=calibration).quantization
    assert [one.kept for one in made.trades] == [0]
    assert 0 < made.trades[0].drop_points <= 5


def test_wrong_ranges_are_never_handed_over(exporter, calibration, tmp_path, monkeypatch):
    """The negative twin of the tolerance: ranges ten times too small, and no limit on what masks may lose."""
    whole = quantizing.estimate

    def small(*args) -> Range:
        found = whole(*args)
        return Range(found.lowest / 10, found.highest / 10)

    monkeypatch.setattr(quantizing, "estimate", small)
    options = replace(CHOSEN, max_drop=None, calibration=calibration.record.sha256)
    with pytest.raises(VerificationError) as caught:
        exporter.write(Target.ONNX, options, tmp_path, calibration=calibration)
    assert "was not kept" in str(caught.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@FULL
@pytest.mark.parametrize(("target", "precision"), CELLS)
def test_every_cell_of_the_matrix_gives_a_file_that_passes(written, target, precision):
    artifact = written(target, replace(CHOSEN, precision=precision, max_drop=3.0))
    assert artifact.passed
    made = artifact.quantization
    assert made.weights > 50
    assert (made.activations > 0) == precision.quantizes_activations
    assert made.weight_bytes < 0.5 * made.float_weight_bytes


@pytest.mark.full
@pytest.mark.parametrize("target", list(Target))
def test_the_real_network_keeps_its_masks_on_real_photos(shared_cases, target, tmp_path):
    """Mask IoU with the masks of its own float network of at least 0.98, with automatic settings."""
    network = api.load("sinet", checkpoint=shared_cases / "sinet_clovaai" / "SINet.pth")
    photos = [shared_cases / "images" / name for name in ("astronaut.png", "tfjs_portrait.jpg")]
    real = prepare_export(network, draw_samples(network.recipe, photos, noise=0, portraits=0))
    images = calibration_set(network.recipe)
    options = ExportOptions(precision=Precision.INT8, calibration=images.record.sha256)
    artifact = real.write(target, options, tmp_path, calibration=images)
    with part(target, "runtime").open_artifact(artifact.path) as runtime:
        for sample, expected in zip(real.samples, real.reference, strict=True):
            given = read_back(runtime.run(feed(sample, runtime.inputs, network.recipe)), runtime.outputs)
            found, truth = (np.asarray(one["logits"]).argmax(1) > 0 for one in (given, expected))
            assert (found & truth).sum() / (found | truth).sum() >= 0.98


@pytest.mark.full
def test_a_tflite_file_of_integers_alone_is_judged_like_any_other(tmp_path):
    network = api.load(load_recipe("portraitnet").with_size(SIDE, SIDE))
    images = calibration_set(network.recipe, count=8)
    given = replace(CHOSEN, precision=Precision.W8A16, integer_io=True, max_drop=5.0)
    options = replace(given, calibration=images.record.sha256)
    exporter = prepare_export(network, draw_samples(network.recipe, noise=0))
    artifact = exporter.write(Target.TFLITE, options, tmp_path, calibration=images)
    assert artifact.passed
    record = read_artifact(artifact.path)
    assert {one.dtype for one in (*record.inputs, *record.outputs)} == {"int16"}
    assert all(one.scale for one in record.inputs)
    assert record.inputs == artifact.inputs

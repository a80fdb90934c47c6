"""The real SINet, as its authors trained it, in every format, against what their own network gives."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch

from deploykit import api
from deploykit.images.preprocess import read_image
from deploykit.lowering import ExportOptions
from deploykit.pipeline import Exporter, prepare_export
from deploykit.records import Artifact, Tolerance
from deploykit.targets.coreml.interpreter import MilInterpreter
from deploykit.targets.tflite.inspection import read_contents
from deploykit.verify.compare import compare
from deploykit.verify.samples import draw_samples
from deploykit.vocab import FLOAT_PRECISIONS, InputKind, Layout, OutputKind, Precision, Target

GOLDEN = Tolerance("the figure that the real network must reach", max_abs_error=1e-4, wrong_pixels=0)
PHOTOS = ("astronaut.png", "tfjs_portrait.jpg")
FULL = pytest.mark.full
LOAD_SECONDS, RUN_SECONDS = 2.0, 0.5  # of the processor; one image of SINet at 224 was measured at 0.04


@pytest.fixture(scope="session")
def golden(shared_cases) -> dict[str, np.ndarray]:
    with np.load(shared_cases / "golden_sinet" / "clovaai_astronaut_224.npz") as arrays:
        return {name: arrays[name] for name in ("x", "logits")}


@pytest.fixture(scope="session")
def exporter(shared_cases) -> Callable[[str], Exporter]:
    """Return the simplified network of a recipe, SINet with its authors' weights, compared on real photos too."""

    @cache
    def prepared(name: str) -> Exporter:
        own = shared_cases / "sinet_clovaai" / "SINet.pth" if name == "sinet" else None
        network = api.load(name, checkpoint=own)
        photos = [shared_cases / "images" / photo for photo in PHOTOS]
        return prepare_export(network, draw_samples(network.recipe, photos, portraits=0))

    return prepared


@pytest.fixture(scope="session")
def written(exporter, tmp_path_factory) -> Callable[..., Artifact]:
    folder = tmp_path_factory.mktemp("real")

    @cache
    def artifact(name: str, target: Target, options: ExportOptions) -> Artifact:
        return exporter(name).write(target, options, folder)

    return artifact


# The gate of `make check` holds the TFLite file of SINet to its checkpoint, its transposes included.
@pytest.mark.parametrize(
    "target",
    [one if one in (Target.ONNX, Target.COREML) else pytest.param(one, marks=FULL) for one in Target],
)
def test_fp32_gives_the_authors_logits(written, golden, target):
    artifact = written("sinet", target, ExportOptions())
    assert artifact.passed
    (logits,) = api.run(artifact, {"image": golden["x"]}).values()
    assert logits.shape == golden["logits"].shape
    found = compare("logits", [logits], [golden["logits"]], GOLDEN, classes=2)
    assert found.passed, found.failures
    assert found.max_abs_error <= 1e-4
    assert found.wrong_pixels == 0
    # The bound is tight enough to see a wrong colour order and the second division by 255.
    for wrong in (golden["x"][:, ::-1], golden["x"] * 255):
        (damaged,) = api.run(artifact, {"image": np.ascontiguousarray(wrong)}).values()
        twin = compare("logits", [damaged], [golden["logits"]], GOLDEN, classes=2)
        assert not twin.passed
        assert twin.wrong_pixels


@FULL
@pytest.mark.parametrize(("layout", "ends"), [(None, 2), (Layout.NHWC, 0)], ids=["NCHW", "NHWC"])
def test_a_tflite_file_transposes_at_its_ends_alone(written, layout, ends):
    artifact = written("sinet", Target.TFLITE, ExportOptions(layout=layout))
    assert read_contents(artifact.path).transposes == ends


@pytest.mark.parametrize(
    "kind", [one if one is OutputKind.LOGITS else pytest.param(one, marks=FULL) for one in OutputKind], ids=str
)
def test_the_photo_alone_gives_the_authors_mask(written, golden, shared_cases, kind):
    artifact = written("sinet", Target.ONNX, ExportOptions(output_kind=kind))
    (found,) = api.run(artifact, image=shared_cases / "images" / "astronaut.png").values()
    mask = read_image(shared_cases / "golden_sinet" / "clovaai_astronaut_224_mask.png")[:, :, 0] > 0
    assert np.array_equal(golden["logits"].argmax(1)[0] > 0, mask)
    portrait = found.argmax(1)[0] > 0 if kind is OutputKind.LOGITS else found[0, 0] > 0.5
    assert np.mean(portrait != mask) <= (0 if kind is OutputKind.LOGITS else 1e-4)


def test_the_core_ml_interpreter_takes_less_than_half_a_second(written, exporter):
    path = written("sinet", Target.COREML, ExportOptions()).path
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        start = time.process_time()
        interpreter = MilInterpreter(path)
        loading = time.process_time() - start
        sample = exporter("sinet").samples[0]
        interpreter.run(sample.tensors)
        start = time.process_time()
        interpreter.run(sample.tensors)
        running = time.process_time() - start
    finally:
        torch.set_num_threads(before)
    assert loading < LOAD_SECONDS
    assert running < RUN_SECONDS


@pytest.mark.parametrize(
    "target", [target if target is Target.COREML else pytest.param(target, marks=FULL) for target in Target]
)
def test_fp16_keeps_the_mask(written, golden, target):
    artifact = written("sinet", target, ExportOptions(precision=Precision.FP16))
    (logits,) = api.run(artifact, {"image": golden["x"]}).values()
    same = (logits.argmax(1) == golden["logits"].argmax(1)).mean()
    assert same >= 0.999
    # Half precision it is: fp32 stays below this.
    assert np.abs(logits - golden["logits"]).max() > 1e-4


@FULL
@pytest.mark.parametrize("input_kind", list(InputKind))
@pytest.mark.parametrize("precision", FLOAT_PRECISIONS)
@pytest.mark.parametrize("target", list(Target))
@pytest.mark.parametrize("name", ["sinet", "rcrnet"])
def test_the_whole_matrix(written, shared_cases, exporter, name, target, precision, input_kind):
    artifact = written(name, target, ExportOptions(precision=precision, input_kind=input_kind))
    assert artifact.passed
    (output,) = artifact.comparisons
    assert output.samples == 3
    assert output.mask_agreement >= (0.999 if name == "sinet" else 0.998)
    if precision is Precision.FP32:
        assert output.wrong_pixels == 0
    (logits,) = api.run(artifact, image=shared_cases / "images" / PHOTOS[0]).values()
    expected = exporter(name).reference[1]["logits"]
    assert (logits.argmax(1) == expected.argmax(1)).mean() >= 0.998

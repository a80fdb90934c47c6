"""Files that give probabilities or masks: the small networks on every target, and the real SINet."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from small_case import write_case

from deploykit import api, pipeline
from deploykit.artifact import MANIFEST
from deploykit.attribution import attribute
from deploykit.errors import TargetError, UsageError, VerificationError
from deploykit.evaluation.predict import opened
from deploykit.evaluation.subjects import resolve
from deploykit.lowering import ExportOptions, plan_export
from deploykit.pipeline import Exporter, prepare_export
from deploykit.provenance.rerun import rerun
from deploykit.recipe import load_recipe
from deploykit.records import Artifact
from deploykit.report.picture import mask_of
from deploykit.verification import verify
from deploykit.verification.records import OutputForm, ProbeVerdict
from deploykit.verify.samples import draw_samples
from deploykit.vocab import InputKind, Layout, OutputKind, Precision, Target

LOGITS, PROBABILITY, MASK = OutputKind
FULL = pytest.mark.full
KINDS = (PROBABILITY, MASK)
# Each target once; the rest of the matrix is for the whole run.
PLAIN = {
    (Target.ONNX, MASK, Precision.FP16),
    (Target.TFLITE, PROBABILITY, Precision.FP32),
    (Target.COREML, PROBABILITY, Precision.FP16),
    (Target.COREAI, MASK, Precision.FP32),
}
COMBINATIONS = [
    pytest.param(*each, marks=() if each in PLAIN else FULL) for each in itertools.product(Target, KINDS, Precision)
]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Callable[[int], Path]:
    return cache(lambda classes: write_case(tmp_path_factory.mktemp(f"of_{classes}"), classes=classes))


@pytest.fixture(scope="module")
def exporter(recipe) -> Callable[[int], Exporter]:
    @cache
    def prepared(classes: int) -> Exporter:
        network = api.load(recipe(classes))
        return prepare_export(network, draw_samples(network.recipe))

    return prepared


@pytest.fixture(scope="module")
def written(exporter, tmp_path_factory) -> Callable[..., Artifact]:
    folder = tmp_path_factory.mktemp("kinds")
    return cache(lambda classes, target, options: exporter(classes).write(target, options, folder))


def image(kind):
    return ExportOptions(output_kind=kind, input_kind=InputKind.IMAGE)


def wanted(scores, kind):
    """What a file of ``kind`` gives for ``scores``, as PyTorch says it."""
    given = torch.from_numpy(scores)
    if kind is MASK:
        return given.argmax(1, keepdim=True).numpy()
    return torch.softmax(given, 1)[:, 1 if given.shape[1] == 2 else 0 :].numpy()


def equals(found, scores, kind, allowed):
    if kind is MASK:
        return np.mean(found != wanted(scores, kind)) <= allowed
    return np.abs(found - wanted(scores, kind)).max() <= allowed


@pytest.mark.parametrize(("target", "kind", "precision"), COMBINATIONS)
@pytest.mark.parametrize("classes", [2, pytest.param(3, marks=FULL)])
def test_every_target_gives_what_follows_from_the_scores(written, exporter, classes, target, kind, precision):
    artifact = written(classes, target, ExportOptions(output_kind=kind, precision=precision))
    assert artifact.passed
    assert artifact.plan.output_kind is kind
    assert "output_contract" in artifact.plan.passes
    (record,) = artifact.outputs
    channels = classes if kind is PROBABILITY and classes > 2 else 1
    assert (record.shape, record.dtype) == ((1, channels, 64, 64), "float32")
    sample, truth = exporter(classes).samples[-1], exporter(classes).reference[-1]["scores"]
    (found,) = api.run(artifact, {"photo": sample.tensors["photo"]}).values()
    assert found.dtype == np.float32
    assert equals(found, truth, kind, 2e-2 if precision is Precision.FP16 else 1e-5)
    # The bound sees the other class, and the scores themselves.
    assert not equals(found, truth[:, ::-1].copy(), kind, 2e-2)
    if kind is MASK:
        assert set(np.unique(found)) == set(range(classes))


@pytest.mark.parametrize("kind", [pytest.param(PROBABILITY, marks=FULL), MASK])
def test_a_file_of_the_other_class_is_not_kept(exporter, kind, tmp_path):
    one = exporter(2)
    swapped = tuple({name: value[:, ::-1] for name, value in sample.items()} for sample in one.reference)
    with pytest.raises(VerificationError, match="does not give what the checkpoint gives"):
        replace(one, reference=swapped).write(Target.ONNX, image(kind), tmp_path)
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


@pytest.mark.full
@pytest.mark.parametrize("kind", [PROBABILITY, MASK])
def test_three_classes_channels_last(written, exporter, kind):
    artifact = written(3, Target.TFLITE, ExportOptions(output_kind=kind, layout=Layout.NHWC))
    sample, truth = exporter(3).samples[-1], exporter(3).reference[-1]["scores"]
    (found,) = api.run(artifact, {"photo": sample.tensors["photo"].transpose(0, 2, 3, 1)}).values()
    assert found.shape == (1, 64, 64, 1 if kind is MASK else 3)
    assert equals(found.transpose(0, 3, 1, 2), truth, kind, 1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("classes", [2, pytest.param(3, marks=FULL)])
def test_verify_knows_the_kind_with_and_without_a_manifest(written, recipe, classes, kind, tmp_path):
    artifact = written(classes, Target.ONNX, image(kind))
    form = OutputForm.MASK if kind is MASK else OutputForm.FOREGROUND if classes == 2 else OutputForm.SOFTMAX
    bare = tmp_path / artifact.path.name
    bare.write_bytes(artifact.path.read_bytes())
    for path in (artifact.path, bare):
        found = verify(path, recipe=recipe(classes), checkpoint=recipe(classes).parent / "small.pt")
        assert found.passed, found.findings
        (output,) = found.runtimes[0].outputs
        assert (output.form, output.comparison.wrong_pixels, output.miou) == (form, 0, 1.0)
        assert found.probe.verdict is (ProbeVerdict.SKIPPED if kind is MASK else ProbeVerdict.AGREES)
    assert (artifact.path.parent / MANIFEST).is_file()
    # Another checkpoint of the same network: neither its probabilities nor its masks are those of the file.
    other = write_case(tmp_path / "other", classes=classes, seed=1).parent / "small.pt"
    assert not verify(artifact.path, against=other, recipe=recipe(classes)).passed


def test_files_of_different_kinds_are_not_compared(written, recipe):
    one, other = (written(2, Target.ONNX, image(kind)) for kind in KINDS)
    with pytest.raises(UsageError, match="give different things"):
        verify(one.path, against=other.path, recipe=recipe(2))


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_agrees_with_itself_and_its_record_comes_out_again(written, exporter, recipe, kind):
    artifact = written(2, Target.ONNX, image(kind))
    assert verify(artifact.path, against=artifact.path, recipe=recipe(2)).passed
    assert rerun(artifact, exporter(2).network).findings == ()


def test_the_mask_is_the_same_whatever_the_file_gives(written, exporter):
    photo = np.ascontiguousarray(exporter(2).samples[-1].pixels["photo"])
    masks: list[np.ndarray] = []
    for kind in OutputKind:
        artifact = written(2, Target.ONNX, image(kind))
        masks.append(mask_of(artifact, exporter(2).network.recipe, api.run(artifact, image=photo), photo))
        assert 0 < (masks[-1] > 0).mean() < 1
        (subject,) = resolve([artifact])
        with opened(subject, threads=1) as predictor:
            scored, _ = predictor.predict(photo, predictor.first_feedback())
        assert np.array_equal(scored, masks[-1] > 0)
    assert np.array_equal(masks[0], masks[1])
    assert np.array_equal(masks[0], masks[2])


def test_the_layers_of_a_mask_are_found(written, recipe, exporter):
    artifact = written(2, Target.ONNX, image(MASK))
    found = attribute(exporter(2).network, artifact.path, exporter(2).samples[:1], artifact.plan)
    assert found.unmatched == 0
    assert "No layer is accused" in found.sentence


# The real SINet; what its files give for a photo is tested where they are exported.


@pytest.fixture(scope="module")
def sinet(shared_cases, tmp_path_factory) -> Callable[[OutputKind], Artifact]:
    network = api.load("sinet", checkpoint=shared_cases / "sinet_clovaai" / "SINet.pth")
    photos = [shared_cases / "images" / "astronaut.png"]
    prepared = prepare_export(network, draw_samples(network.recipe, photos, portraits=0))
    folder = tmp_path_factory.mktemp("sinet")
    return cache(lambda kind: prepared.write(Target.ONNX, ExportOptions(output_kind=kind), folder))


@pytest.fixture(scope="module")
def golden(shared_cases) -> dict[str, np.ndarray]:
    with np.load(shared_cases / "golden_sinet" / "clovaai_astronaut_224.npz") as arrays:
        return {name: arrays[name] for name in ("x", "logits")}


def macs_of_convolutions(path: Path) -> int:
    """The multiply-accumulates of every Conv in an ONNX file of known shapes."""
    model = onnx.shape_inference.infer_shapes(onnx.load(str(path)))
    sizes = {one.name: tuple(one.dims) for one in model.graph.initializer}
    for value in (*model.graph.value_info, *model.graph.output):
        sizes[value.name] = tuple(one.dim_value for one in value.type.tensor_type.shape.dim)
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    return sum(int(np.prod(sizes[one.input[1]]) * np.prod(sizes[one.output[0]][2:])) for one in convolutions)


@pytest.mark.full
def test_sinet_gives_the_sigmoid_of_the_difference_at_half_the_head(sinet, golden):
    difference = golden["logits"][:, 1:].astype(np.float64) - golden["logits"][:, :1]
    (probability,) = api.run(sinet(PROBABILITY), {"image": golden["x"]}).values()
    assert probability.shape == (1, 1, 224, 224)
    assert np.abs(probability - 1 / (1 + np.exp(-difference))).max() <= 5e-5
    assert np.abs(probability - 1 / (1 + np.exp(difference))).max() > 0.5
    (mask,) = api.run(sinet(MASK), {"image": golden["x"]}).values()
    changed = mask[0, 0] != golden["logits"].argmax(1)[0]
    assert not (changed & (np.abs(difference[0, 0]) > 2e-4)).any()
    assert changed.mean() < 1e-4
    logits = macs_of_convolutions(sinet(LOGITS).path)
    for kind in KINDS:
        # The last layer is 3x3 from two channels at 224: one output less saves at least 18 for each pixel.
        assert macs_of_convolutions(sinet(kind).path) <= logits - 18 * 224 * 224


def test_a_mask_cannot_be_fed_back():
    recipe = load_recipe("rcrnet-video")
    plan_export(recipe, Target.ONNX, ExportOptions(output_kind=PROBABILITY))
    with pytest.raises(TargetError, match="cannot be fed back") as caught:
        plan_export(recipe, Target.ONNX, ExportOptions(output_kind=MASK))
    assert "--output-kind probability" in caught.value.next_step


@pytest.mark.parametrize(("margin", "refused"), [(1e-14, False), (1e-3, True)])
def test_of_equal_scores_a_rewritten_mask_may_give_either_class(exporter, monkeypatch, margin, refused):
    one = exporter(2)
    scores = one.reference[0]["scores"].astype(np.float64)
    scores[0, 1, 5, 7] = scores[0, 0, 5, 7] + margin
    mask = scores.argmax(1, keepdims=True).astype(np.float64)
    mask[0, 0, 5, 7] = 0
    monkeypatch.setattr(pipeline, "run_exactly", lambda graph, recipe, sample: {"scores": mask})
    recipe = one.network.recipe
    failures = pipeline._rewriting_failures(one.deploy, recipe, one.samples[0], {"scores": scores}, MASK)
    assert bool(failures) is refused


def test_a_pass_that_changes_a_mask_is_named(exporter, monkeypatch, tmp_path):
    """The twin: scores of the other sign change every pixel, and nothing is written."""
    build = pipeline.rewritten

    def damaged(graph, recipe, plan, *, until=None):
        after = build(graph, recipe, plan, until=until)
        if plan.output_kind is MASK and (until is None or until == "compose_convolutions"):
            weights = [p for p in after.module.parameters() if p.dim() == 4]
            weights[-1].data.neg_()
        return after

    monkeypatch.setattr(pipeline, "rewritten", damaged)
    fresh = replace(exporter(2))
    with pytest.raises(VerificationError, match="Rewriting changed what the network computes") as caught:
        fresh.write(Target.ONNX, image(MASK), tmp_path)
    assert "compose_convolutions" in str(caught.value.where)
    assert "pixels wrong" in str(caught.value.found)

"""Files that deploykit wrote: good ones pass, and what was changed in them afterwards is found and named."""

from __future__ import annotations

import io
import json

import numpy as np
import onnx
import pytest
import torch
from rich.console import Console
from verification_cases import SUFFIXES, bare, copied, replace_weight, weight_of

from deploykit import verify_artifact
from deploykit.artifact import MANIFEST
from deploykit.cli.verify_tables import of_verification
from deploykit.errors import ArtifactError, CheckpointError, UsageError, VerificationError
from deploykit.lowering import ExportOptions
from deploykit.network import build_network
from deploykit.report.picture import write_image
from deploykit.verification import Choices
from deploykit.vocab import InputKind, Target

FULL = pytest.mark.full
EVERY = pytest.mark.parametrize("target", [*SUFFIXES, pytest.param(Target.COREAI, marks=FULL)])
MOST = pytest.mark.parametrize("target", [Target.ONNX, pytest.param(Target.COREML, marks=FULL), Target.TFLITE])


def verify(case, path, **options):
    return verify_artifact(path, recipe=case.recipe_path, **options)


def printed(one):
    console = Console(width=120, file=io.StringIO())
    for part in of_verification(one):
        console.print(part)
    return console.file.getvalue()


def only_output(one):
    (run,) = one.runtimes
    return run.outputs[0]


@EVERY
def test_a_good_file_passes_with_every_figure(case, exported, target):
    one = verify(case(), exported(target).path)
    assert one.passed, one.findings
    assert (one.target, one.changed, one.precision_source) == (target, (), "as its manifest says")
    assert one.samples == ("noise 0", "portrait 0", "portrait 1")
    assert one.reference.sha256 == case().network.checkpoint_sha256
    output = only_output(one)
    assert output.comparison.max_abs_error < 1e-4
    assert output.cosine == pytest.approx(1)
    assert output.miou == pytest.approx(1)
    assert output.truth_miou == pytest.approx(output.reference_truth_miou)
    worst = output.worst
    assert abs(worst.found - worst.expected) == pytest.approx(output.comparison.max_abs_error)
    assert not output.lints


def test_a_core_ai_asset_that_its_own_hash_gives_away(case, exported, tmp_path):
    path = copied(exported(Target.COREAI), tmp_path / "copy")
    weight = weight_of(case(), "last")
    replace_weight(path, weight, weight * np.float32(1.5))
    with pytest.raises(VerificationError, match="changed since its manifest") as caught:
        verify(case(), path)
    assert path.name in caught.value.found


@pytest.mark.parametrize("target", [*SUFFIXES])
def test_a_perturbed_weight_fails_and_the_changed_file_is_named(case, exported, tmp_path, target):
    path = copied(exported(target), tmp_path / "copy")
    weight = weight_of(case(), "last")
    changed = weight.copy()
    changed[1, 5] += 0.05
    replace_weight(path, weight, changed)
    one = verify(case(), path.parent)
    assert not one.passed
    assert len(one.changed) == 1
    assert one.changed[0].startswith(path.name)
    assert one.changed[0] in one.findings[0]
    output = only_output(one)
    assert output.comparison.max_abs_error > 1e-3
    assert output.worst.place[0] == 1


@MOST
def test_weights_that_are_nan_fail_with_a_lint(case, exported, tmp_path, target):
    path = bare(exported(target), tmp_path)
    weight = weight_of(case(), "last")
    replace_weight(path, weight, np.full_like(weight, np.nan))
    one = verify(case(), path)
    assert not one.passed
    lints = {lint.rule: lint for lint in only_output(one).lints}
    assert lints["nan"].share == 1
    assert only_output(one).cosine is None


@MOST
def test_an_output_that_does_not_depend_on_its_input_is_named(case, exported, tmp_path, target):
    path = bare(exported(target), tmp_path)
    weight = weight_of(case(), "last")
    replace_weight(path, weight, np.zeros_like(weight))
    one = verify(case(), path)
    assert [lint.rule for lint in only_output(one).lints] == ["constant"]
    assert any("do not depend on the input" in finding for finding in one.findings)


@MOST
def test_swapped_classes_fail_by_their_masks(case, exported, tmp_path, target):
    path = bare(exported(target), tmp_path)
    weight = weight_of(case(), "last")
    replace_weight(path, weight, weight[::-1].copy())
    output = only_output(verify(case(), path))
    assert not output.passed
    assert output.miou < 0.5
    assert output.comparison.wrong_pixels > 0


def test_a_clipped_output_is_said_to_be_saturated(case, exported, tmp_path):
    model = onnx.load(str(exported(Target.ONNX).path))
    top = onnx.numpy_helper.from_array(np.float32(0.5), "top")
    model.graph.initializer.append(top)
    model.graph.node[-1].output[0] = "free"
    model.graph.node.append(onnx.helper.make_node("Min", ["free", "top"], ["scores"]))
    onnx.save(model, str(tmp_path / "clipped.onnx"))
    one = verify(case(), tmp_path / "clipped.onnx")
    (lint,) = only_output(one).lints
    assert lint.rule == "saturated"
    assert "0.5" in lint.detail
    assert not one.passed


def test_another_shape_is_a_failure_with_both_shapes(case, exported, tmp_path):
    model = onnx.load(str(exported(Target.ONNX).path))
    model.graph.node[-1].output[0] = "free"
    model.graph.node.append(
        onnx.helper.make_node("AveragePool", ["free"], ["scores"], kernel_shape=[2, 2], strides=[2, 2])
    )
    for axis, size in ((2, 24), (3, 32)):
        model.graph.output[0].type.tensor_type.shape.dim[axis].dim_value = size
    onnx.save(model, str(tmp_path / "half.onnx"))
    one = verify(case(), tmp_path / "half.onnx")
    assert one.findings == ("scores: shape [1, 2, 24, 32] instead of [1, 2, 48, 64]",)


def test_two_files_against_each_other(case, exported, tmp_path):
    first, second = exported(Target.ONNX), exported(Target.TFLITE)
    one = verify_artifact(first.path, against=second.path)
    assert one.passed, one.findings
    assert one.reference.kind == "file"
    assert "LiteRT" in one.reference.computed_by
    broken = bare(second, tmp_path)
    weight = weight_of(case(), "last")
    replace_weight(broken, weight, weight * 1.01)
    other = verify_artifact(broken, against=first.path)
    assert not other.passed
    both = verify_artifact(bare(first, tmp_path), against=broken, recipe=case().recipe_path)
    assert not both.passed


def test_against_another_checkpoint(case, exported, tmp_path):
    network = build_network(case().recipe)
    torch.manual_seed(5)
    torch.nn.init.normal_(network.last.weight)
    torch.save(network.state_dict(), tmp_path / "other.pt")
    one = verify(case(), exported(Target.ONNX).path, against=tmp_path / "other.pt")
    assert not one.passed
    assert any("another checkpoint than the file was made from" in note for note in one.notes)
    with pytest.raises(CheckpointError, match="not the one that the file was made from") as caught:
        verify(case(), exported(Target.ONNX).path, checkpoint=tmp_path / "other.pt")
    assert "--against" in caught.value.next_step
    with pytest.raises(UsageError, match="two checkpoints"):
        verify(case(), exported(Target.ONNX).path, against=tmp_path / "other.pt", checkpoint=case().checkpoint)


def test_without_its_checkpoint_the_error_says_which_one(case, exported, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="is not here") as caught:
        verify_artifact(copied(exported(Target.ONNX), tmp_path / "moved"))
    assert case().network.checkpoint_sha256 in caught.value.expected
    monkeypatch.chdir(case().recipe_path.parent)
    assert verify_artifact(exported(Target.ONNX).path).passed


def test_a_file_is_compared_on_every_runtime_and_between_them(case, exported, monkeypatch):
    from deploykit.targets.onnx import runtime

    def two(path, threads):
        return runtime.OnnxRuntime(path, threads), runtime.OnnxRuntime(path, threads)

    monkeypatch.setattr(runtime, "open_all", two, raising=False)
    one = verify(case(), exported(Target.ONNX).path)
    assert one.passed
    assert len(one.runtimes) == 2
    (pair,) = one.between
    assert pair.comparison.max_abs_error == 0


def test_a_changed_file_that_does_not_load_fails(exported, case, tmp_path):
    path = copied(exported(Target.ONNX), tmp_path / "cut")
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(VerificationError, match="changed since its manifest") as caught:
        verify(case(), path)
    assert path.name in caught.value.found


@pytest.mark.parametrize("target", [*SUFFIXES])
def test_a_damaged_file_without_a_manifest_is_a_users_error(case, tmp_path, target):
    path = tmp_path / f"bad{SUFFIXES[target]}"
    if target is Target.COREML:
        path.mkdir()
        (path / "Manifest.json").write_text("{}")
    else:
        path.write_bytes(b"\x08\x07no model at all" * 40)
    with pytest.raises(ArtifactError):
        verify(case(), path)


def test_a_damaged_manifest_is_not_passed_over(case, exported, tmp_path):
    path = copied(exported(Target.ONNX), tmp_path / "copy")
    manifest = path.parent / MANIFEST
    record = json.loads(manifest.read_text("utf-8"))
    del record["body"]["plan"]
    manifest.write_text(json.dumps(record), "utf-8")
    with pytest.raises(ArtifactError, match="manifest is damaged"):
        verify(case(), path)
    manifest.write_text('{"name": "an extension of a browser"}', "utf-8")
    one = verify(case(), path)
    assert one.passed
    assert one.manifest is None
    assert one.precision_source == "most of its weights are float32"


@pytest.mark.parametrize("stated", InputKind)
def test_an_input_kind_that_the_manifest_denies_is_refused(case, exported, tmp_path, stated):
    path = exported(Target.ONNX).path
    if stated is InputKind.TENSOR:
        path = case().write(Target.ONNX, tmp_path, ExportOptions(input_kind=InputKind.IMAGE)).path
    with pytest.raises(UsageError, match="takes something else") as caught:
        verify(case(), path, choices=Choices(input_kind=stated))
    assert "as its manifest says" in caught.value.expected
    (own,) = (kind for kind in InputKind if kind is not stated)
    assert verify(case(), path, choices=Choices(input_kind=own)).passed


def test_layers_are_looked_at_where_the_file_is_worst(case, exported, tmp_path):
    path = bare(exported(Target.ONNX), tmp_path)
    weight = weight_of(case(), "last")
    replace_weight(path, weight, weight * np.float32(1.01))
    write_image(photo := tmp_path / "flat.png", np.full((48, 64, 3), (255, 0, 255), np.uint8))
    one = verify(case(), path, images=[photo], choices=Choices(layers=True))
    worst = only_output(one).worst
    assert worst.sample == "flat.png"
    assert one.layers.samples == ("noise 0", "flat.png")
    assert [row.module for row in one.layers.rows if row.verdict == "accused"] == ["last"]
    text = printed(one)
    assert "on noise 0, flat.png" in text
    assert "next: export again" in text


def test_where_no_layer_is_wrong_the_tolerance_is_to_be_decided(case, exported, tmp_path):
    recipe = case().recipe_path
    strict = recipe.with_name("strict.toml")
    strict.write_text(recipe.read_text("utf-8").replace("max_abs_error = 1e-4", "max_abs_error = 1e-12"), "utf-8")
    path = bare(exported(Target.ONNX), tmp_path)
    one = verify_artifact(path, recipe=strict, choices=Choices(layers=True))
    assert not one.passed
    assert one.layers.samples[0] == "noise 0"
    assert "No layer is accused" in (text := printed(one))
    assert "next: no layer is wrong" in text

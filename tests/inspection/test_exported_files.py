"""Files that deploykit exported: what they hold, what their manifest adds, and what happens when they are changed."""

from __future__ import annotations

import shutil

import pytest

import deploykit
from deploykit.api import export
from deploykit.artifact import MANIFEST
from deploykit.errors import ArtifactError, TargetError
from deploykit.graph.conventions import CONVENTIONS
from deploykit.inspection import inspect_file
from deploykit.lowering import ExportOptions
from deploykit.targets.table import TARGETS
from deploykit.vocab import FLOAT_PRECISIONS, Convention, Precision, Target

MACS = (216 + 18) * 32 * 48


@pytest.fixture
def folder(exported, tmp_path):
    return shutil.copytree(exported.path.parent, tmp_path / "artifact")


def test_a_file_its_folder_and_its_manifest_are_one(folder):
    found = [inspect_file(path) for path in (folder, folder / MANIFEST, folder / "follow.onnx")]
    assert found[0] == found[1] == found[2]
    assert (found[0].recipe, found[0].verified, found[0].changed) == ("follow", True, ())


def test_what_the_file_holds(folder):
    one = inspect_file(folder)
    assert one.macs == MACS
    assert one.unknown == {}
    assert one.contents.operations["Conv"] == 2
    assert "BatchNormalization" not in one.contents.operations
    image, prior = one.contents.inputs
    assert (image.name, image.shape, image.dtype, image.color_order) == ("image", (1, 3, 32, 48), "uint8", "bgr")
    assert (prior.name, prior.dtype, prior.color_order) == ("prior", "float32", None)
    assert [item.name for item in one.contents.outputs] == ["scores"]
    assert "background, hair, skin" in one.contents.outputs[0].meaning
    assert one.contents.metadata["recipe"] == "follow"


@pytest.mark.parametrize("convention", Convention)
def test_a_convention_of_training_forms_says_why_it_counts_no_file(folder, convention):
    one = inspect_file(folder, convention)
    if convention in (Convention.MACS, Convention.CONV_MACS):
        assert (one.macs, one.why_no_macs) == (MACS, "")
    else:
        assert one.macs is None
        assert one.why_no_macs == CONVENTIONS[convention].training_only != ""


def test_without_its_manifest_the_file_is_somebody_elses(folder):
    (folder / MANIFEST).unlink()
    one = inspect_file(folder / "follow.onnx")
    assert (one.recipe, one.verified, one.macs) == (None, None, MACS)
    assert one.contents.inputs[0].color_order is None


def test_beside_the_manifest_of_another_file_or_program_too(folder):
    other = shutil.copy(folder / "follow.onnx", folder / "other.onnx")
    one = inspect_file(other)
    assert (one.recipe, one.contents.path) == (None, folder / "other.onnx")
    (folder / MANIFEST).write_text('{"name": "an app"}')
    assert inspect_file(other) == one
    with pytest.raises(ArtifactError, match="manifest is damaged"):
        inspect_file(folder)


def test_a_changed_file_is_read_and_said_to_be_changed(folder):
    import onnx

    path = folder / "follow.onnx"
    model = onnx.load(str(path))
    model.doc_string = "changed"
    onnx.save(model, str(path))
    one = inspect_file(folder)
    assert (one.changed, one.verified, one.macs) == (("follow.onnx",), None, MACS)


def test_what_is_no_artifact_is_refused(tmp_path, folder):
    with pytest.raises(ArtifactError, match="no such file"):
        inspect_file(tmp_path / "absent.onnx")
    with pytest.raises(ArtifactError, match="no manifest"):
        inspect_file(tmp_path)
    (folder / "follow.onnx").unlink()
    with pytest.raises(ArtifactError, match="no ONNX model, or it is damaged"):
        inspect_file(folder)
    text = tmp_path / "x.txt"
    text.write_text("hello")
    with pytest.raises(ArtifactError, match="no manifest"):
        inspect_file(text)


def test_a_missing_package_is_named_with_its_command(folder, monkeypatch):
    import sys

    monkeypatch.delitem(sys.modules, "deploykit.targets.onnx.inspection")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(TargetError) as refused:
        inspect_file(folder)
    assert refused.value.next_step == TARGETS[Target.ONNX].install_command()


@pytest.mark.full
@pytest.mark.parametrize("precision", FLOAT_PRECISIONS)
@pytest.mark.parametrize("target", Target)
def test_sinet_counts_the_same_in_every_file(tmp_path, target, precision):
    (artifact,) = export("sinet", targets=[target], output_dir=tmp_path, options=ExportOptions(precision=precision))
    one = deploykit.inspect(artifact.path, convention="conv-macs")
    assert one.macs == 63_866_208
    assert one.unknown == {}
    assert one.contents.size_bytes == artifact.size_bytes
    assert one.contents.operations
    weights = {item.dtype: item for item in one.contents.weights}
    half = precision is Precision.FP16
    assert weights["float16" if half else "float32"].values > 80_000
    assert ("float16" in one.contents.computed) == (half and target is not Target.TFLITE)
    systems = {Target.COREML: "iOS 15, macOS 12", Target.COREAI: "iOS 27, macOS 27"}
    assert one.contents.minimum_os == systems.get(target)

"""A network that the package has never seen, exported to every target: bytes, metadata, failures."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from small_case import write_case

from deploykit import api
from deploykit.artifact import changed_files, read_artifact
from deploykit.errors import TargetError, VerificationError
from deploykit.lowering import ExportOptions
from deploykit.pipeline import Exporter, export, prepare_export
from deploykit.recipe import Recipe
from deploykit.records import Artifact
from deploykit.targets.base import ExportRequest
from deploykit.targets.table import part
from deploykit.verify.samples import draw_samples
from deploykit.vocab import ColorOrder, InputKind, Layout, Precision, Target

HALF_IMAGE = ExportOptions(precision=Precision.FP16, input_kind=InputKind.IMAGE)
FULL = pytest.mark.full
EVERY_TARGET = pytest.mark.parametrize("target", list(Target))
ONE_TARGET = pytest.mark.parametrize(
    "target", [target if target is Target.ONNX else pytest.param(target, marks=FULL) for target in Target]
)


@dataclass(frozen=True)
class Case:
    recipe: Path
    exporter: Exporter


@pytest.fixture(scope="module")
def case(tmp_path_factory) -> Callable[..., Case]:
    @cache
    def prepared(factory: str = "Small", classes: int = 2) -> Case:
        recipe = write_case(tmp_path_factory.mktemp(factory), factory=factory, classes=classes)
        network = api.load(recipe)
        return Case(recipe, prepare_export(network, draw_samples(network.recipe)))

    return prepared


@pytest.fixture(scope="module")
def plain(case, tmp_path_factory) -> Callable[[Target], Artifact]:
    """Return the fp32 file of a target with every default, written once."""
    folder = tmp_path_factory.mktemp("plain")

    @cache
    def written(target: Target) -> Artifact:
        return case().exporter.write(target, ExportOptions(), folder)

    return written


def tree(folder: Path) -> dict[str, bytes]:
    return {
        item.relative_to(folder).as_posix(): item.read_bytes() for item in sorted(folder.rglob("*")) if item.is_file()
    }


def copied(artifact: Artifact, output_dir: Path) -> Path:
    """Return a copy of the folder of ``artifact`` where an export of the same plan into ``output_dir`` writes."""
    folder = artifact.path.parent
    return Path(shutil.copytree(folder, output_dir / folder.parent.name / folder.name, dirs_exist_ok=True))


def with_tolerance(exporter: Exporter, **bounds: float) -> Exporter:
    """Return ``exporter`` with other fp32 bounds in its recipe."""
    recipe = exporter.network.recipe
    section = recipe.file.tolerances.fp32.model_copy(update=bounds)
    tolerances = recipe.file.tolerances.model_copy(update={"fp32": section})
    changed = Recipe(recipe.file.model_copy(update={"tolerances": tolerances}), recipe.path, recipe.sha256)
    return replace(exporter, network=replace(exporter.network, recipe=changed))


@EVERY_TARGET
def test_fp32_is_equivalent_and_its_own_file_runs(case, plain, target):
    artifact = plain(target)
    assert artifact.passed
    assert artifact.comparisons[0].max_abs_error < 2e-5
    assert [record.name for record in artifact.outputs] == ["scores"]
    assert {report.name: len(report.fired) for report in artifact.passes}["drop_unused_outputs"] == 1
    exporter = case().exporter
    sample = exporter.samples[-1]
    with torch.no_grad():
        expected, _ = exporter.network.module(torch.from_numpy(sample.tensors["photo"]))
    (scores,) = api.run(artifact, {"photo": sample.tensors["photo"]}).values()
    assert np.abs(scores - expected.numpy()).max() < 5e-5
    assert np.abs(scores[:, ::-1] - expected.numpy()).max() > 0.1


@pytest.mark.parametrize(
    "target",
    [one if one in (Target.ONNX, Target.COREML) else pytest.param(one, marks=FULL) for one in Target],
)
def test_fp16_with_the_preprocessing_inside(case, target, tmp_path):
    artifact = case().exporter.write(target, HALF_IMAGE, tmp_path)
    (photo,) = artifact.inputs
    assert photo.dtype == "uint8"
    assert photo.color_order is (ColorOrder.RGB if target is Target.COREML else ColorOrder.BGR)
    # Really half precision: well above the error of fp32, and below the recipe's bound.
    assert 1e-5 < artifact.comparisons[0].relative_l2 < 1e-2
    pixels = case().exporter.samples[-1].pixels["photo"]
    photo_rgb = pixels[:, :, ::-1]
    (scores,) = api.run(str(artifact.path), image=np.ascontiguousarray(photo_rgb)).values()
    reference = case().exporter.reference[-1]["scores"]
    assert np.abs(scores - reference).max() < 0.05
    (swapped,) = api.run(artifact, image=np.ascontiguousarray(pixels)).values()
    assert np.abs(swapped - reference).max() > 0.05


@pytest.mark.parametrize(
    ("target", "options"),
    [
        (Target.ONNX, ExportOptions(opset=20)),
        pytest.param(Target.COREML, ExportOptions(minimum_os="iOS17"), marks=FULL),
        (Target.COREML, ExportOptions(minimum_os="iOS18", precision=Precision.FP16)),
        (Target.TFLITE, ExportOptions(layout=Layout.NHWC)),
        pytest.param(Target.COREAI, ExportOptions(minimum_os="iOS27"), marks=FULL),
        pytest.param(Target.TFLITE, ExportOptions(layout=Layout.NHWC, input_kind=InputKind.IMAGE), marks=FULL),
    ],
    ids=["onnx opset 20", "ios17", "ios18 fp16", "nhwc", "ios27", "nhwc image"],
)
def test_two_inputs_and_six_classes_in_other_plans(case, target, options, tmp_path):
    artifact = case("WithPrior", 6).exporter.write(target, options, tmp_path)
    assert artifact.passed
    records = {record.name: record for record in (*artifact.inputs, *artifact.outputs)}
    assert set(records) == {"photo", "a_prior", "scores"}
    assert records["a_prior"].dtype == "float32"
    if options.layout is Layout.NHWC:
        assert {record.layout for record in records.values()} == {Layout.NHWC}
        assert records["scores"].shape == (1, 64, 64, 6)
    else:
        assert records["scores"].shape == (1, 6, 64, 64)
        assert records["photo"].dtype == "float32"


@ONE_TARGET
def test_the_same_bytes_twice(case, plain, target, tmp_path):
    first = plain(target)
    second = case().exporter.write(target, ExportOptions(), tmp_path)
    assert tree(second.path.parent) == tree(first.path.parent)
    assert second.content_hash == first.content_hash
    assert replace(second, path=first.path) == first


def test_no_file_holds_the_day_it_was_made(plain):
    for target in Target:
        whole = b"".join(tree(plain(target).path.parent).values())
        assert b"conversion_date" not in whole


# The converters of the others take ten seconds to import.
@pytest.mark.parametrize("targets", [(Target.ONNX,), pytest.param(tuple(Target), marks=FULL)], ids=["onnx", "all"])
def test_the_same_bytes_in_another_process(case, plain, targets, tmp_path):
    code = (
        "import sys; from deploykit import api; api.export(sys.argv[1], targets=sys.argv[3:], output_dir=sys.argv[2])"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, str(case().recipe), str(tmp_path), *targets]
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    for target in targets:
        first = plain(target).path.parent
        assert tree(tmp_path / "small" / first.name) == tree(first)


@ONE_TARGET
def test_the_content_hash_tells_networks_apart(case, plain, target, tmp_path):
    changed = replace(case().exporter, training=_perturbed(case().exporter.training))
    loose = with_tolerance(changed, max_abs_error=10.0, relative_l2=1.0, wrong_pixels=10**9)
    assert loose.write(target, ExportOptions(), tmp_path).content_hash != plain(target).content_hash


def _perturbed(graph):
    """Return ``graph`` with one weight changed by 2 %."""
    copied = graph.copy()
    weight = copied.module.get_parameter("fine.weight").data.view(-1)
    weight[weight.abs().argmax()] *= 1.02
    return copied


@ONE_TARGET
def test_one_wrong_weight_in_the_file_is_seen(case, target, tmp_path, monkeypatch):
    module = part(target, "export")
    write = module.write

    def damaging(request: ExportRequest, path: Path) -> None:
        write(replace(request, graph=_perturbed(request.graph)), path)

    monkeypatch.setattr(module, "write", damaging)
    with pytest.raises(VerificationError, match="max absolute error") as caught:
        case().exporter.write(target, ExportOptions(), tmp_path)
    assert caught.value.exit_code == 1
    assert tree(tmp_path) == {}


@ONE_TARGET
def test_a_failed_comparison_leaves_what_was_there(case, plain, target, tmp_path):
    impossible = with_tolerance(case().exporter, max_abs_error=1e-12)
    with pytest.raises(VerificationError, match="was not kept"):
        impossible.write(target, ExportOptions(), tmp_path)
    assert not [item for item in tmp_path.rglob("*") if item.is_file()]
    older = copied(plain(target), tmp_path)
    before = tree(tmp_path)
    with pytest.raises(VerificationError):
        impossible.write(target, ExportOptions(), tmp_path)
    assert tree(tmp_path) == before
    assert changed_files(read_artifact(older)) == ()
    assert [item.name for item in (tmp_path / "small").iterdir()] == [older.name]


def test_a_converter_that_breaks_leaves_nothing(case, tmp_path, monkeypatch):
    def broken(request: ExportRequest, path: Path) -> None:
        path.write_bytes(b"half a file")
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(part(Target.ONNX, "export"), "write", broken)
    with pytest.raises(ZeroDivisionError, match="planted"):
        case().exporter.write(Target.ONNX, ExportOptions(), tmp_path)
    assert list((tmp_path / "small").iterdir()) == []


@pytest.mark.parametrize(
    ("target", "converter"),
    [
        (Target.ONNX, "torch.onnx.export"),
        (Target.COREML, "coremltools.convert"),
        (Target.TFLITE, "litert_torch.convert"),
        (Target.COREAI, "deploykit.targets.coreai.export.coreai_torch.TorchConverter.to_coreai"),
    ],
)
def test_whatever_a_converter_raises_is_an_error_of_its_target(case, target, converter, tmp_path, monkeypatch):
    def refusing(*_: object, **__: object) -> None:
        raise KeyError("some_operation")

    monkeypatch.setattr(converter, refusing)
    with pytest.raises(TargetError, match="some_operation") as caught:
        case().exporter.write(target, ExportOptions(), tmp_path)
    assert isinstance(caught.value.__cause__, KeyError)
    assert list((tmp_path / "small").iterdir()) == []


def test_one_tensor_under_two_names_is_refused_for_core_ml(case, tmp_path):
    with pytest.raises(TargetError, match="under two names"):
        case("Twin").exporter.write(Target.COREML, ExportOptions(), tmp_path)
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("target", [Target.ONNX, pytest.param(Target.COREAI, marks=FULL)])
def test_one_tensor_under_two_names(case, target, tmp_path):
    artifact = case("Twin").exporter.write(target, ExportOptions(), tmp_path)
    assert [one.output for one in artifact.comparisons] == ["scores", "edge"]


def test_a_file_that_gives_nan_is_refused(case, tmp_path, monkeypatch):
    runtime = part(Target.ONNX, "runtime")

    class Nothing(runtime.OnnxRuntime):
        def run(self, inputs):
            return {name: np.full_like(value, np.nan) for name, value in super().run(inputs).items()}

    monkeypatch.setattr(runtime, "open_artifact", Nothing)
    with pytest.raises(VerificationError, match="NaN"):
        case().exporter.write(Target.ONNX, ExportOptions(), tmp_path)
    assert tree(tmp_path) == {}


def test_an_export_replaces_the_artifact_of_the_same_plan(case, plain, tmp_path):
    first = copied(plain(Target.ONNX), tmp_path)
    (first / "small.onnx").write_bytes(b"damaged")
    (first / "left_over.txt").write_text("old")
    second = case().exporter.write(Target.ONNX, ExportOptions(), tmp_path)
    assert second.path == first / "small.onnx"
    assert changed_files(second) == ()
    assert sorted(item.name for item in second.path.parent.iterdir()) == [
        "certificate.json",
        "manifest.json",
        "small.onnx",
    ]


def test_plans_are_checked_before_anything_is_converted(case, tmp_path):
    exporter = case().exporter
    with pytest.raises(TargetError, match="--layout nhwc"):
        export(exporter.network, list(Target), exporter.samples, tmp_path / "out", ExportOptions(layout=Layout.NHWC))
    assert not (tmp_path / "out").exists()
    with pytest.raises(TargetError, match="No target"):
        export(exporter.network, [], exporter.samples, tmp_path / "out")


def test_lint_says_why_the_scale_was_not_folded(case, tmp_path):
    artifact = case().exporter.write(Target.ONNX, ExportOptions(input_kind=InputKind.IMAGE), tmp_path)
    (note,) = artifact.lint
    assert "the scale of photo stays a multiplication" in note
    assert "subnormal in half precision" in note


def _said(artifact: Artifact) -> dict[str, str]:
    return {
        "description": "a small network of this test",
        "license": "Apache-2.0",
        "source": "this test",
        "recipe": "small",
        "plan": artifact.plan.digest(),
        "checkpoint_sha256": artifact.checkpoint_sha256,
        "recipe_sha256": artifact.recipe_sha256,
        "layout": "nchw",
        "input.photo": "image, shape [1, 3, 64, 64], bgr, resized by stretch (bilinear), "
        "(pixel - [104.0, 117.0, 123.0]) * [0.017, 0.018, 0.019]",
        "output.scores": "one score per class; classes: class 0, class 1",
    }


def test_the_onnx_file_says_what_it_is(plain):
    import onnx

    artifact = plain(Target.ONNX)
    model = onnx.load(str(artifact.path))
    assert model.doc_string == "a small network of this test"
    assert (model.producer_name, model.graph.name) == ("deploykit", "small")
    assert [one.version for one in model.opset_import if one.domain in ("", "ai.onnx")] == [18]
    said = {item.key: item.value for item in model.metadata_props}
    assert said.items() >= _said(artifact).items()
    assert list(said) == sorted(said)
    assert b"stack_trace" not in artifact.path.read_bytes()
    assert os.fsencode(Path.cwd()) not in artifact.path.read_bytes()


def test_the_core_ml_package_says_what_it_is(plain):
    import coremltools as ct

    artifact = plain(Target.COREML)
    description = ct.utils.load_spec(str(artifact.path)).description
    own = description.metadata
    assert (own.shortDescription, own.license, own.author) == (
        "a small network of this test",
        "Apache-2.0",
        "this test",
    )
    assert own.userDefined["com.apple.coreml.model.preview.type"] == "imageSegmenter"
    preview = json.loads(own.userDefined["com.apple.coreml.model.preview.parameters"])
    assert preview["labels"] == ["class 0", "class 1"]
    assert len(set(preview["colors"])) == 2
    said = _said(artifact)
    assert {f"deploykit.{key}": value for key, value in said.items()}.items() <= dict(own.userDefined).items()
    assert description.input[0].shortDescription == said["input.photo"]
    assert description.output[0].shortDescription == "one score per class"


def test_the_core_ml_package_has_derived_identifiers_and_nothing_extra(plain):
    package = plain(Target.COREML).path
    assert sorted(item.name for item in package.iterdir()) == ["Data", "Manifest.json"]
    assert not list(package.rglob("*debug*"))
    manifest = json.loads((package / "Manifest.json").read_text())
    entries = manifest["itemInfoEntries"]
    for identifier, entry in entries.items():
        assert identifier == str(uuid.uuid5(uuid.NAMESPACE_URL, entry["path"]))
        assert (package / "Data" / entry["path"]).exists()
    assert manifest["rootModelIdentifier"] in entries


def test_the_tflite_file_says_what_it_is(plain):
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.interpreter import Interpreter

    from deploykit.targets.tflite.metadata import read_metadata

    artifact = plain(Target.TFLITE)
    model = schema.ModelT.InitFromPackedBuf(bytearray(artifact.path.read_bytes()), 0)
    assert model.description == b"a small network of this test"
    said = read_metadata(artifact.path)
    assert said.items() >= _said(artifact).items()
    signature = Interpreter(model_path=str(artifact.path)).get_signature_list()["serving_default"]
    assert signature == {"inputs": ["photo"], "outputs": ["scores"]}


@EVERY_TARGET
def test_the_manifest_gives_back_what_was_written(plain, target):
    artifact = plain(target)
    for place in (artifact.path, artifact.path.parent, artifact.path.parent / "manifest.json"):
        assert read_artifact(place) == artifact
    assert changed_files(artifact) == ()
    assert artifact.size_bytes == sum(item.size_bytes for item in artifact.files)
    assert {"deploykit", "python", "torch", "numpy"} < set(artifact.toolchain)
    text = (artifact.path.parent / "manifest.json").read_text()
    assert str(artifact.path.parent) not in text

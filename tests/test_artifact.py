"""Artifacts on disk: hashes, the manifest, and putting a folder in place."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from deploykit import artifact as module
from deploykit.artifact import (
    changed_files,
    find_artifacts,
    hash_files,
    hash_items,
    read_artifact,
    staged,
    write_manifest,
)
from deploykit.errors import ArtifactError
from deploykit.records import Artifact, Comparison, ExportPlan, Fired, PassReport, Skipped, TensorRecord, Tolerance
from deploykit.targets.table import TARGETS
from deploykit.vocab import ColorOrder, InputKind, Layout, OutputKind, Precision, Target

TOLERANCE = Tolerance("because of a reason", max_abs_error=1e-4, wrong_pixels=0)


def make_artifact(folder: Path, target: Target = Target.ONNX) -> Artifact:
    """Write a pretended file of ``target`` with its manifest into ``folder``; return its record."""
    path = folder / f"net{TARGETS[target].suffix}"
    folder.mkdir(parents=True)
    if target is Target.COREML:
        (path / "Data").mkdir(parents=True)
        (path / "Data" / "weight.bin").write_bytes(b"weights")
        (path / "Manifest.json").write_text('{"itemInfoEntries": {}}')
    else:
        path.write_bytes(b"bytes of a model")
    files = hash_files(path)
    comparison = Comparison(
        output="logits",
        samples=3,
        max_abs_error=1e-5,
        median_abs_error=1e-7,
        relative_l2=0.0,
        snr_db=math.inf,
        mask_agreement=None,
        wrong_pixels=0,
        worst_index=(0, 1, 2, 3),
        tolerance=TOLERANCE,
        failures=(),
    )
    record = Artifact(
        recipe="net",
        plan=ExportPlan(
            target,
            Precision.FP16,
            Layout.NCHW,
            InputKind.IMAGE,
            OutputKind.LOGITS,
            ((1, 3, 8, 8), (1, 4)),
            ("a_pass",),
            opset=None,
            minimum_os="iOS16",
        ),
        path=path,
        content_hash=hash_items([b"content"]),
        size_bytes=sum(item.size_bytes for item in files),
        files=files,
        recipe_sha256="a" * 64,
        checkpoint_sha256="b" * 64,
        inputs=(TensorRecord("image", (1, 8, 8, 3), "uint8", Layout.NHWC, ColorOrder.BGR),),
        outputs=(TensorRecord("logits", (1, 2, 8, 8), "float32", Layout.NCHW),),
        toolchain={"torch": "2"},
        passes=(PassReport("a_pass", (Fired(("m.one", "m.two"), "done"),), (Skipped("m", "because"),)),),
        comparisons=(comparison,),
        recipe_table={"name": "net", "inputs": [{"shape": [1, 3, 8, 8]}]},
        lint=("a note",),
        runtime="a runtime",
    )
    write_manifest(record, folder)
    return record


@pytest.fixture(params=list(Target))
def record(request, tmp_path) -> Artifact:
    return make_artifact(tmp_path / "net" / "plan", request.param)


def test_what_is_read_is_what_was_written(record):
    for place in (record.path, record.path.parent, record.path.parent / "manifest.json"):
        assert read_artifact(place) == record
    assert changed_files(record) == ()


def test_a_folder_can_move(record, tmp_path):
    record.path.parent.rename(tmp_path / "moved")
    moved = read_artifact(tmp_path / "moved")
    assert moved.path == tmp_path / "moved" / record.path.name
    assert changed_files(moved) == ()


def test_the_manifest_is_strict_json(record):
    def refuse(text: str) -> None:
        raise AssertionError(text)

    body = json.loads((record.path.parent / "manifest.json").read_text(), parse_constant=refuse)["body"]
    assert body["path"] == record.path.name
    assert body["comparisons"][0]["snr_db"] == "inf"


def test_changed_missing_and_added_files_are_named(tmp_path):
    record = make_artifact(tmp_path / "plan", Target.COREML)
    weights = record.path / "Data" / "weight.bin"
    weights.write_bytes(b"Weights")
    assert changed_files(record) == ("net.mlpackage/Data/weight.bin",)
    weights.unlink()
    (record.path / "debug.json").write_text("{}")
    assert changed_files(record) == ("net.mlpackage/Data/weight.bin", "net.mlpackage/debug.json")
    one = make_artifact(tmp_path / "other", Target.TFLITE)
    one.path.unlink()
    assert changed_files(one) == ("net.tflite",)


def test_core_mls_own_manifest_is_never_taken_for_ours(tmp_path):
    record = make_artifact(tmp_path / "net" / "plan", Target.COREML)
    # What a disk that ignores case answers for the name manifest.json.
    (record.path / "manifest.json").write_text('{"itemInfoEntries": {}}')
    assert read_artifact(record.path) == record
    assert find_artifacts(tmp_path) == (record,)
    (record.path.parent / "manifest.json").unlink()
    for place in (record.path, record.path / "manifest.json"):
        with pytest.raises(ArtifactError, match="no manifest"):
            read_artifact(place)
    assert find_artifacts(tmp_path) == ()


def test_artifacts_are_found_in_order_and_unfinished_ones_are_not(tmp_path):
    second = make_artifact(tmp_path / "net" / "b", Target.TFLITE)
    first = make_artifact(tmp_path / "net" / "a")
    make_artifact(tmp_path / "net" / ".a-xyz")
    assert find_artifacts(tmp_path) == (first, second)
    assert find_artifacts(tmp_path / "nowhere") == ()
    assert find_artifacts(first.path) == ()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[: len(text) // 2], "damaged"),
        (lambda text: "", "damaged"),
        (lambda text: "[]", "damaged"),
        (lambda text: text.replace('"kind": "artifact"', '"kind": "latency"'), "another kind"),
        (lambda text: text.replace('"deploykit": 1', '"deploykit": 2'), "another kind or version"),
        (lambda text: text.replace('"precision": "fp16"', '"precision": "fp12"'), "damaged"),
        (lambda text: text.replace('"recipe": "net"', '"recipes": "net"'), "damaged"),
        (lambda text: text.replace('"plan": {', '"plan": [], "old": {'), "damaged"),
    ],
)
def test_a_manifest_that_is_not_ours_is_one_error(tmp_path, damage, message):
    record = make_artifact(tmp_path / "plan")
    manifest = record.path.parent / "manifest.json"
    text = manifest.read_text()
    assert damage(text) != text
    manifest.write_text(damage(text))
    with pytest.raises(ArtifactError, match=message) as caught:
        read_artifact(record.path)
    assert caught.value.where == str(manifest)


@pytest.mark.parametrize("place", ["nothing.onnx", "."])
def test_no_manifest_is_one_error(tmp_path, place):
    with pytest.raises(ArtifactError, match="no manifest"):
        read_artifact(tmp_path / place)


def test_hashes_of_lists_do_not_collide():
    lists = [[b"ab"], [b"a", b"b"], [b"", b"ab"], [b"ab", b""], []]
    assert len({hash_items(items) for items in lists}) == len(lists)


def test_a_staged_folder_takes_its_place_at_the_end(tmp_path):
    folder = tmp_path / "deep" / "plan"
    with staged(folder) as temporary:
        (temporary / "file").write_text("new")
        assert not folder.exists()
    assert (folder / "file").read_text() == "new"
    with staged(folder) as temporary:
        (temporary / "other").write_text("newer")
        assert (folder / "file").exists()
    assert [item.name for item in folder.iterdir()] == ["other"]
    assert [item.name for item in folder.parent.iterdir()] == ["plan"]
    assert folder.stat().st_mode & 0o777 == 0o755


def test_an_error_leaves_what_was_there(tmp_path):
    folder = tmp_path / "plan"
    folder.mkdir()
    (folder / "file").write_text("old")
    with pytest.raises(FileExistsError), staged(folder) as temporary:
        (temporary / "file").mkdir(exist_ok=(temporary / "file").write_text("new") == 0)
    assert (folder / "file").read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["plan"]


def test_a_rename_that_fails_puts_the_old_folder_back(tmp_path, monkeypatch):
    folder = tmp_path / "plan"
    folder.mkdir()
    (folder / "file").write_text("old")
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if (self / "new").exists():
            raise PermissionError(13, "planted")
        return rename(self, target)

    monkeypatch.setattr(module.Path, "rename", failing)
    with pytest.raises(PermissionError), staged(folder) as temporary:
        (temporary / "new").write_text("")
    assert (folder / "file").read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["plan"]


def test_an_output_folder_that_cannot_be_made_is_one_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="cannot be written") as caught, staged(tmp_path / "file" / "plan"):
        pass
    assert "--output-dir" in (caught.value.next_step or "")


def test_a_failed_comparison_makes_a_failed_artifact(record):
    broken = replace(record.comparisons[0], failures=("too far",))
    assert record.passed
    assert not replace(record, comparisons=(*record.comparisons, broken)).passed

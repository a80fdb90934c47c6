"""What the arguments of a benchmark name, and each way to get them wrong."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from bench_cases import write_onnx

from deploykit.artifact import MANIFEST, hash_files, write_manifest
from deploykit.errors import ArtifactError, TargetError, UsageError
from deploykit.latency.subjects import find_subjects, short_names
from deploykit.records import Artifact, ExportPlan
from deploykit.vocab import InputKind, Layout, OutputKind, Precision, Target


def _exported(folder: Path, precision: Precision = Precision.FP32) -> Artifact:
    path = write_onnx(folder / "tiny.onnx")
    plan = ExportPlan(
        Target.ONNX, precision, Layout.NCHW, InputKind.TENSOR, OutputKind.LOGITS, ((1, 3, 8, 8),), passes=()
    )
    files = hash_files(path)
    empty = Artifact("tiny", plan, path, "hash", files[0].size_bytes, files, "r", "c", (), (), {}, (), (), {})
    write_manifest(empty, folder)
    return empty


def test_a_bare_file_has_no_manifest(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "bare.onnx")
    (subject,) = find_subjects([path])
    assert (subject.name, subject.target, subject.artifact) == ("bare.onnx", Target.ONNX, None)
    assert subject.size_bytes == path.stat().st_size


@pytest.mark.parametrize("given", ["", "tiny.onnx", MANIFEST])
def test_an_artifact_is_found_by_folder_file_or_manifest(tmp_path: Path, given: str) -> None:
    artifact = _exported(tmp_path / "one")
    (subject,) = find_subjects([tmp_path / "one" / given])
    assert subject.artifact == artifact
    assert subject.path == artifact.path


def test_a_file_beside_the_manifest_of_another_is_bare(tmp_path: Path) -> None:
    _exported(tmp_path)
    (subject,) = find_subjects([write_onnx(tmp_path / "other.onnx")])
    assert subject.artifact is None


def test_a_folder_gives_all_below_it_under_names_that_differ(tmp_path: Path) -> None:
    _exported(tmp_path / "a")
    _exported(tmp_path / "b", Precision.FP16)
    assert [subject.name for subject in find_subjects([tmp_path])] == ["a/tiny.onnx", "b/tiny.onnx"]


def test_short_names_are_as_long_as_needed() -> None:
    paths = [Path("/x/a/m.onnx"), Path("/y/a/m.onnx"), Path("/y/b/n.onnx")]
    assert short_names(paths) == ("x/a/m.onnx", "y/a/m.onnx", "n.onnx")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no such file"):
        find_subjects([tmp_path / "gone.onnx"])


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(b"-")
    with pytest.raises(TargetError, match="not one of the formats"):
        find_subjects([tmp_path / "photo.png"])


def test_a_folder_without_artifact_is_refused(tmp_path: Path) -> None:
    write_onnx(tmp_path / "bare.onnx")
    with pytest.raises(ArtifactError, match="no artifact in the folder"):
        find_subjects([tmp_path])


def test_one_file_twice_is_refused(tmp_path: Path) -> None:
    artifact = _exported(tmp_path)
    with pytest.raises(UsageError, match="twice"):
        find_subjects([tmp_path, artifact.path])


def test_a_copy_under_another_name_is_taken(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "a.onnx")
    shutil.copy(path, tmp_path / "b.onnx")
    assert [subject.name for subject in find_subjects([path, tmp_path / "b.onnx"])] == ["a.onnx", "b.onnx"]


def test_a_file_other_than_its_manifest_says_is_refused(tmp_path: Path) -> None:
    artifact = _exported(tmp_path)
    artifact.path.write_bytes(artifact.path.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match=r"tiny\.onnx"):
        find_subjects([tmp_path])


def test_a_manifest_without_its_file_is_refused(tmp_path: Path) -> None:
    artifact = _exported(tmp_path)
    artifact.path.unlink()
    with pytest.raises(ArtifactError, match="not the one that its manifest describes"):
        find_subjects([tmp_path])


def test_a_damaged_manifest_is_refused(tmp_path: Path) -> None:
    _exported(tmp_path)
    (tmp_path / MANIFEST).write_text("{", "utf-8")
    with pytest.raises(ArtifactError, match="damaged"):
        find_subjects([tmp_path])

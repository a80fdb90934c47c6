"""The baseline's file: the same bytes each time, its differences, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from gate_cases import COUNTS, NAME, baseline, observed

from deploykit.errors import ArtifactError
from deploykit.gate.baseline import (
    Baseline,
    accepted,
    changes,
    read_baseline,
    rendered_baseline,
    updated,
    write_baseline,
)
from deploykit.gate_records import Measure
from deploykit.records import ExportPlan
from deploykit.vocab import InputKind, Layout, OutputKind, Precision, Target

PLAN = ExportPlan(
    Target.ONNX, Precision.FP32, Layout.NCHW, InputKind.TENSOR, OutputKind.LOGITS, ((1, 3, 64, 64),), ("fold",), 18
)


def test_what_was_written_is_read_again_and_the_same_artifacts_give_the_same_bytes(tmp_path: Path) -> None:
    one = accepted(observed(), plan=PLAN, recipe_sha256="a" * 64, checkpoint_sha256="b" * 64)
    path = tmp_path / "gate-baseline.json"
    write_baseline(Baseline((one,)), path)
    assert read_baseline(path) == Baseline((one,))
    assert rendered_baseline(read_baseline(path)) == path.read_bytes()
    assert one.figures == COUNTS
    assert [item.name for item in tmp_path.iterdir()] == ["gate-baseline.json"]
    assert str(tmp_path) not in path.read_text("utf-8")


def test_a_figure_that_is_not_known_is_left_out() -> None:
    one = accepted(observed({Measure.MACS: None}), plan=PLAN, recipe_sha256="", checkpoint_sha256="")
    assert Measure.MACS not in one.figures


def test_differences_are_said_figure_by_figure() -> None:
    after = baseline(content_hash="d" * 64, figures={**COUNTS, Measure.BYTES: 103_000})
    found = {one.what: (one.before, one.after) for one in changes(baseline(), after)}
    assert found == {"bytes": ("100,000", "103,000"), "content": ("c" * 12, "d" * 12)}
    assert changes(baseline(), baseline()) == ()
    new = changes(None, baseline())
    assert (new[0].artifact, new[0].what, new[0].before, new[0].after) == (NAME, "artifact", None, "there")


def test_an_update_of_some_keeps_the_others_and_one_of_all_does_not() -> None:
    (one,), (other,) = baseline().artifacts, baseline(name="another").artifacts
    assert [item.name for item in updated(Baseline((one,)), [other], whole=False).artifacts] == ["another", NAME]
    assert [item.name for item in updated(Baseline((one,)), [other], whole=True).artifacts] == ["another"]
    assert updated(None, [one], whole=False) == baseline()


def damage(path: Path, **changes: Any) -> None:
    record = json.loads(rendered_baseline(baseline()))
    path.write_text(json.dumps({**record, **changes}), "utf-8")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"kind": "gate"}', "\x00", "[" * 100_000])
def test_what_is_no_baseline_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "b.json").write_text(text, "utf-8")
    with pytest.raises(ArtifactError, match="baseline cannot be read") as caught:
        read_baseline(tmp_path / "b.json")
    assert caught.value.next_step
    assert "--update-baseline" in caught.value.next_step


@pytest.mark.parametrize("version", [0, 2, "1", True, None])
def test_another_version_is_refused_and_says_how_to_go_on(tmp_path: Path, version: object) -> None:
    damage(tmp_path / "b.json", version=version)
    with pytest.raises(ArtifactError, match="another version") as caught:
        read_baseline(tmp_path / "b.json")
    assert caught.value.found == f"version {version}"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("figures", {"bytes": "many"}),
        ("figures", {"bytes": -1}),
        ("figures", {"bytes": 1.5}),
        ("figures", {"bytes": True}),
        ("figures", {"beauty": 1}),
        ("content_hash", 5),
        ("plan", None),
    ],
)
def test_a_damaged_entry_is_refused(tmp_path: Path, key: str, value: object) -> None:
    record = json.loads(rendered_baseline(baseline()))
    damage(tmp_path / "b.json", artifacts=[{**record["artifacts"][0], key: value}])
    with pytest.raises(ArtifactError, match="baseline cannot be read"):
        read_baseline(tmp_path / "b.json")


def test_an_artifact_that_comes_twice_is_refused(tmp_path: Path) -> None:
    record = json.loads(rendered_baseline(baseline()))
    damage(tmp_path / "b.json", artifacts=record["artifacts"] * 2)
    with pytest.raises(ArtifactError, match="comes twice"):
        read_baseline(tmp_path / "b.json")


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ArtifactError, match="cannot be written"):
        write_baseline(baseline(), tmp_path / "file" / "b.json")

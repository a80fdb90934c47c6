"""Whatever lies in a folder is read strictly or listed with the reason; nothing stops the report."""

from __future__ import annotations

import json

import pytest
from report_cases import write_record

from deploykit.errors import ArtifactError
from deploykit.report_page.matching import match
from deploykit.report_page.reading import collect
from deploykit.report_page.records import Left


@pytest.mark.parametrize(
    ("content", "why", "words"),
    [
        ("{", Left.UNREADABLE, "no JSON"),
        ("[1, 2]", Left.FOREIGN, "neither kind nor version"),
        ('{"a": 1}', Left.FOREIGN, "neither kind nor version"),
        (
            '{"deploykit": 2, "kind": "bench", "body": {}}',
            Left.UNREADABLE,
            "version 2, not 1: install a newer deploykit",
        ),
        ('{"deploykit": true, "kind": "bench", "body": {}}', Left.UNREADABLE, "not 1"),
        ('{"deploykit": 1, "kind": "weather", "body": {}}', Left.UNUSED, "no place for records of kind weather"),
        ('{"deploykit": 1, "kind": "bench", "body": {}}', Left.UNREADABLE, "measured: Field required"),
        ('{"deploykit": 1, "kind": "bench"}', Left.UNREADABLE, "damaged record of kind bench"),
        ('{"deploykit": 1, "kind": "gate", "body": {"passed": "perhaps"}}', Left.UNREADABLE, "passed"),
        ("[" * 200_000, Left.UNREADABLE, "no JSON"),
    ],
)
def test_what_is_no_sound_record_is_listed(folder, content, why, words):
    (folder / "strange.json").write_text(content, "utf-8")
    found = collect(folder)
    (left,) = found.left_out
    assert (left.path, left.why) == ("strange.json", why)
    assert words in left.reason
    assert len(found.records) == 5


def test_hidden_files_and_packages_are_passed_over(folder):
    for place in (folder / ".cache", folder / "chain" / "x.mlpackage"):
        place.mkdir()
        (place / "strange.json").write_text("{", "utf-8")
    (folder / ".strange.json").write_text("{", "utf-8")
    assert collect(folder).left_out == ()


def test_figures_that_a_command_adds_are_passed_over(folder):
    path = folder / "chain" / "records" / "bench.json"
    record = json.loads(path.read_text("utf-8"))
    record["body"]["measured"][0].update(median_s=1.0, fps=1.0)
    path.write_text(json.dumps(record), "utf-8")
    assert collect(folder).left_out == ()


def test_a_folder_without_manifests_is_the_users_error(tmp_path):
    write_record(tmp_path / "gate.json", "gate", {})
    with pytest.raises(ArtifactError, match="no artifact in the folder"):
        collect(tmp_path)


def test_no_folder_is_the_users_error(tmp_path):
    with pytest.raises(ArtifactError, match="cannot be read"):
        collect(tmp_path / "nothing")


def test_a_difference_to_anything_but_the_checkpoint_is_not_shown(folder):
    path = folder / "chain" / "records" / "evaluate.json"
    record = json.loads(path.read_text("utf-8"))

    def differences() -> list[object]:
        (dossier,) = match(collect(folder)).dossiers
        return [one.difference for one in dossier.scores[0].evaluation.summaries]

    assert None not in differences()
    record["body"]["evaluations"] = record["body"]["evaluations"][1:]
    path.write_text(json.dumps(record), "utf-8")
    assert set(differences()) == {None}

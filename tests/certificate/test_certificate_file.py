"""Certificates on disk: the same bytes each time, and no byte that can change unseen."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest
from certificate_cases import Case

from deploykit.certificate.file import read_certificate, rendered, require_writable, write_certificate
from deploykit.certificate.make import certify
from deploykit.certificate.records import Certificate
from deploykit.errors import ArtifactError
from deploykit.seal import sealed
from deploykit.verify.samples import draw_samples


@pytest.fixture(scope="module")
def made(case: Case) -> Certificate:
    samples = draw_samples(case.network.recipe)
    return certify(case.network, samples, training=case.training, deploy=case.deploy)


@pytest.fixture
def path(made, tmp_path):
    write_certificate(made, tmp_path / "certificate.json")
    return tmp_path / "certificate.json"


def test_what_is_read_is_what_was_written(made, path):
    read = read_certificate(path)
    assert read.certificate == made
    assert read.broken == ()
    assert list(path.parent.iterdir()) == [path]


def test_the_same_network_gives_the_same_bytes(case, path, tmp_path):
    samples = draw_samples(case.network.recipe)
    write_certificate(
        certify(case.network, samples, deploy=case.deploy, training=case.training), tmp_path / "again.json"
    )
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()


def test_nothing_tells_time_path_or_machine(path, tmp_path):
    text = path.read_text("utf-8")
    assert str(tmp_path) not in text
    assert "time" not in json.loads(text)["body"]
    assert "not signed" in text.lower() or "nothing here is signed" in text.lower()
    assert "Winograd" in text


def test_each_block_is_one_line(made, path):
    lines = path.read_text("utf-8").splitlines()
    assert sum('"preconditions"' in line for line in lines) == len(made.blocks)


def is_found(path):
    try:
        return bool(read_certificate(path).broken)
    except ArtifactError as error:
        return error.where == str(path)


def test_every_flipped_bit_is_found(path):
    content = path.read_bytes()
    rng = random.Random(11)
    for _ in range(60):
        damaged = bytearray(content)
        damaged[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        assert is_found(path)


def test_a_changed_block_is_named(made, path):
    record = json.loads(path.read_bytes())
    record["body"]["blocks"][2]["measured"]["float32_error"] *= 0.5
    path.write_text(rendered(record), "utf-8")
    assert read_certificate(path).broken == (f"blocks[{made.blocks[2].name}]",)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda record: record.update(deploykit=99), "version 99"),
        (lambda record: record.update(kind="artifact"), "artifact"),
        (lambda record: record["body"].pop("samples"), "samples"),
        (lambda record: record["body"]["blocks"][0].update(kind=3), r"blocks\[0\].kind: int"),
        (lambda record: record["body"]["blocks"][0]["box"].update(lower="x"), "lower: str"),
        (lambda record: record["body"].update(more=1), "more"),
    ],
)
def test_what_is_no_certificate_is_an_error_that_names_the_place(path, change, found):
    record = json.loads(path.read_bytes())
    change(record)
    path.write_text(json.dumps(sealed(record)), "utf-8")
    with pytest.raises(ArtifactError, match=found):
        read_certificate(path)


def test_a_file_that_is_not_there_and_a_place_that_cannot_be_written(made, tmp_path):
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_certificate(tmp_path / "none.json")
    with pytest.raises(ArtifactError, match="cannot be written"):
        write_certificate(made, tmp_path / "no folder" / "certificate.json")


def test_a_place_that_cannot_be_written_is_known_beforehand(tmp_path):
    for path in (tmp_path / "no folder" / "certificate.json", tmp_path):
        with pytest.raises(ArtifactError, match="cannot be written"):
            require_writable(path)
    kept = tmp_path / "certificate.json"
    kept.write_text("kept", "utf-8")
    require_writable(kept)
    require_writable(tmp_path / "new.json")
    assert [(one.name, one.read_text("utf-8")) for one in tmp_path.iterdir()] == [("certificate.json", "kept")]


@pytest.mark.parametrize(
    ("text", "found"), [("[]", "not an object"), ("{}", "no field 'kind'"), ("", "line 1 column 1")]
)
def test_json_that_is_no_record_is_said_in_words(path, text, found):
    path.write_text(text, "utf-8")
    with pytest.raises(ArtifactError, match=found) as caught:
        read_certificate(path)
    assert "Error" not in caught.value.found


def test_a_certificate_without_blocks_is_one(made, tmp_path):
    write_certificate(replace(made, blocks=()), tmp_path / "empty.json")
    read = read_certificate(tmp_path / "empty.json")
    assert read.certificate.blocks == ()
    assert read.broken == ()

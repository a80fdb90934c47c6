"""The chain from checkpoint to measurements: whole it passes, and every changed byte is found and named."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from deploykit.artifact import MANIFEST, read_artifact, rendered_manifest, write_manifest
from deploykit.errors import ArtifactError
from deploykit.provenance.check import check_manifest
from deploykit.provenance.records import ManifestCheck, Verdict
from deploykit.seal import sealed
from deploykit.vocab import Target

NAMES = ["manifest", "files", "recipe", "checkpoint", "certificate", "comparisons", "measurements"]
BODY_FIELDS = {
    "certificate",
    "checkpoint_sha256",
    "comparisons",
    "content_hash",
    "files",
    "inputs",
    "lint",
    "measurements",
    "outputs",
    "passes",
    "path",
    "plan",
    "quantization",
    "recipe",
    "recipe_sha256",
    "recipe_table",
    "runtime",
    "size_bytes",
    "toolchain",
}


def verdicts(check: ManifestCheck) -> dict[str, Verdict]:
    return {link.name: link.verdict for link in check.links}


def findings(check: ManifestCheck, name: str) -> str:
    (link,) = (one for one in check.links if one.name == name)
    return "\n".join(link.findings)


def flip(path: Path, position: int, mask: int) -> None:
    content = bytearray(path.read_bytes())
    content[position % len(content)] ^= mask
    path.write_bytes(content)


def test_a_whole_chain_passes(written):
    for target, chain in written.items():
        check = check_manifest(chain.folder, recipe=chain.recipe)
        measured = Verdict.PASS if target is Target.ONNX else Verdict.SKIPPED
        assert verdicts(check) == {**dict.fromkeys(NAMES, Verdict.PASS), "measurements": measured}
        assert check.passed


def test_what_is_not_at_hand_is_skipped_and_says_why(copied):
    chain = copied(checkpoint=False)
    check = check_manifest(chain.folder / MANIFEST)
    skipped = dict.fromkeys(("recipe", "checkpoint", "comparisons"), Verdict.SKIPPED)
    assert verdicts(check) == {**dict.fromkeys(NAMES, Verdict.PASS), **skipped}
    assert all(link.detail for link in check.links)


@pytest.mark.parametrize("target", [Target.ONNX, Target.COREML])
def test_a_flipped_bit_in_any_file_is_found_and_the_file_named(copied, target):
    chain = copied(target, checkpoint=False)
    files = sorted(item for item in chain.folder.rglob("*") if item.is_file())
    rng = random.Random(7)
    named = {
        MANIFEST: "manifest",
        "certificate.json": "certificate",
    }
    for path in files:
        content = path.read_bytes()
        link = named.get(path.name, "measurements" if path.name.startswith("bench-") else "files")
        for _ in range(10):
            flip(path, rng.randrange(len(content)), 1 << rng.randrange(8))
            check = check_manifest(chain.folder)
            assert not check.passed
            assert verdicts(check)[link] is Verdict.FAIL
            if link != "manifest":
                assert path.relative_to(chain.folder).as_posix() in findings(check, link)
                assert verdicts(check)["manifest"] is Verdict.PASS
            path.write_bytes(content)
    assert len(files) * 10 >= 30
    assert check_manifest(chain.folder).passed


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in children:
        yield from leaves(inner, (*path, key))
    if not isinstance(value, (dict, list)) or not value:
        yield path


def altered(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    return value + "x" if isinstance(value, str) else "x"


def test_every_field_of_the_manifest_is_covered_and_named(copied):
    chain = copied(checkpoint=False)
    manifest = chain.folder / MANIFEST
    original = json.loads(manifest.read_bytes())
    assert original["body"].keys() == BODY_FIELDS
    for path in leaves(original["body"]):
        record = json.loads(manifest.read_bytes())
        place = record["body"]
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = altered(place[path[-1]])
        manifest.write_bytes(rendered_manifest(record))
        check = check_manifest(chain.folder)
        assert f"changed: {path[0]}" in findings(check, "manifest"), path
        manifest.write_bytes(rendered_manifest(original))


@pytest.mark.parametrize("key", ["deploykit", "kind", "sha256", "digests"])
@pytest.mark.parametrize("gone", [False, True])
def test_the_head_and_the_seal_are_covered_too(copied, key, gone):
    chain = copied(checkpoint=False)
    manifest = chain.folder / MANIFEST
    record = json.loads(manifest.read_bytes())
    if gone:
        del record[key]
    elif key == "digests":
        record[key]["recipe"] = "0" * 16
    else:
        record[key] = altered(record[key])
    manifest.write_bytes(rendered_manifest(record))
    check = check_manifest(chain.folder)
    assert verdicts(check)["manifest"] is Verdict.FAIL
    assert findings(check, "manifest")


def test_another_spelling_of_the_same_manifest_is_found(copied):
    chain = copied(checkpoint=False)
    manifest = chain.folder / MANIFEST
    manifest.write_text(manifest.read_text("utf-8").replace('": ', '":  ', 1), "utf-8")
    assert findings(check_manifest(chain.folder), "manifest") == "changed: the spacing or order of the file"


def test_a_manifest_from_before_the_digests_still_describes_its_file(copied):
    chain = copied(checkpoint=False)
    manifest = chain.folder / MANIFEST
    record = json.loads(manifest.read_bytes())
    old = {key: record[key] for key in ("deploykit", "kind", "body")}
    del old["body"]["certificate"], old["body"]["measurements"]
    manifest.write_text(json.dumps(old), "utf-8")
    assert read_artifact(manifest).certificate is None
    check = check_manifest(chain.folder)
    assert "export again" in findings(check, "manifest")
    assert "export again" in findings(check, "certificate")


def test_a_missing_and_an_added_file_are_named(copied):
    chain = copied(Target.COREML, checkpoint=False)
    package = next(chain.folder.glob("*.mlpackage"))
    (package / "extra.bin").write_bytes(b"more")
    weights = next(package.rglob("weight.bin"))
    weights.unlink()
    (chain.folder / "certificate.json").unlink()
    check = check_manifest(chain.folder)
    assert "extra.bin" in findings(check, "files")
    assert "weight.bin" in findings(check, "files")
    assert findings(check, "certificate").startswith("certificate.json: missing")


def test_another_checkpoint_is_found_and_without_it_nothing_is_compared(copied):
    chain = copied()
    checkpoint = chain.recipe.parent / "chain.pt"
    state = torch.load(checkpoint, weights_only=True)
    state["wide.0.weight"][0, 0, 0, 0] += 1e-6
    other = checkpoint.with_name("other.pt")
    torch.save(state, other)
    check = check_manifest(chain.folder, recipe=chain.recipe, checkpoint=other)
    assert verdicts(check)["checkpoint"] is Verdict.FAIL
    assert "sha256" in findings(check, "checkpoint")
    assert verdicts(check)["comparisons"] is Verdict.SKIPPED


def test_another_recipe_is_found_and_its_table_named(copied):
    chain = copied(checkpoint=False)
    chain.recipe.write_text(chain.recipe.read_text("utf-8").replace("127.5", "127.0"), "utf-8")
    check = check_manifest(chain.folder, recipe=chain.recipe)
    assert "sha256" in findings(check, "recipe")
    assert "inputs: not as in the manifest's copy" in findings(check, "recipe")


def resealed(chain, change) -> None:
    """Rewrite the manifest with a mistake in it, as a faulty program would: its digests fit."""
    record = json.loads((chain.folder / MANIFEST).read_bytes())
    change(record["body"])
    (chain.folder / MANIFEST).write_bytes(rendered_manifest(sealed(record)))


@pytest.mark.parametrize(
    ("change", "link", "named"),
    [
        (lambda body: body.update(checkpoint_sha256="0" * 64), "certificate", "checkpoint_sha256"),
        (lambda body: body.update(content_hash="0" * 64), "files", "content_hash"),
        (lambda body: body["files"][0].update(sha256="0" * 64), "files", ".onnx"),
        (lambda body: body.update(recipe_sha256="0" * 64), "recipe", "sha256"),
        (lambda body: body["recipe_table"].update(description="another"), "recipe", "description"),
        (lambda body: body["measurements"].clear(), "measurements", ""),
    ],
)
def test_a_mistake_with_fitting_digests_is_found_by_its_link(copied, change, link, named):
    chain = copied(checkpoint=False)
    resealed(chain, change)
    check = check_manifest(chain.folder, recipe=chain.recipe)
    assert verdicts(check)["manifest"] is Verdict.PASS
    assert verdicts(check)[link] is (Verdict.FAIL if named else Verdict.SKIPPED)
    assert named in findings(check, link)


@pytest.mark.parametrize(("field", "value", "found"), [("max_abs_error", 1e-4, True), ("max_abs_error", 1e-6, False)])
def test_comparisons_that_the_file_does_not_give_are_named(copied, field, value, found):
    """The platform may move an error by a few times its own size, far below the tolerance of 1e-3, and no more."""
    chain = copied()
    resealed(chain, lambda body: body["comparisons"][0].update({field: value}))
    check = check_manifest(chain.folder, recipe=chain.recipe)
    failed = {name for name, verdict in verdicts(check).items() if verdict is Verdict.FAIL}
    assert failed == ({"comparisons"} if found else set())
    assert (field in findings(check, "comparisons")) == found


def test_a_measurement_of_another_file_is_found(copied, written):
    onnx, coreml = copied(checkpoint=False), copied(Target.COREML, checkpoint=False)
    artifact = read_artifact(coreml.folder)
    (measured,) = read_artifact(onnx.folder).measurements
    (coreml.folder / measured.path).write_bytes((onnx.folder / measured.path).read_bytes())
    resealed(coreml, lambda body: body.update(measurements=[vars(measured)]))
    check = check_manifest(coreml.folder)
    assert f"another file than content hash {artifact.content_hash}" in findings(check, "measurements")


def test_a_folder_without_manifest_is_an_error(tmp_path):
    with pytest.raises(ArtifactError, match="no manifest"):
        check_manifest(tmp_path)


def test_writing_a_manifest_again_gives_the_same_bytes(copied):
    chain = copied(checkpoint=False)
    before = (chain.folder / MANIFEST).read_bytes()
    write_manifest(read_artifact(chain.folder), chain.folder)
    assert (chain.folder / MANIFEST).read_bytes() == before

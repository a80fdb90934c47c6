"""Check a manifest: every link from the checkpoint to the measurements, each byte of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from deploykit.artifact import changed_files, hash_items, manifest_of, read_artifact, rendered_manifest
from deploykit.certificate.check import compare_certificate, sized
from deploykit.certificate.file import ReadCertificate, read_certificate
from deploykit.checkpoint.load import sha256_file
from deploykit.errors import ArtifactError, DeploykitError, VerificationError
from deploykit.network import LoadedNetwork, load_network
from deploykit.provenance.measurements import measurement_findings
from deploykit.provenance.records import Link, ManifestCheck, Verdict
from deploykit.provenance.rerun import rerun
from deploykit.recipe import Recipe, bundled_recipes, load_recipe, recipe_from_table
from deploykit.records import Artifact, FileHash
from deploykit.seal import SEAL, broken_fields, is_sealed
from deploykit.targets.table import TARGETS, part

FILES, RECIPE, CHECKPOINT, CERTIFICATE, COMPARISONS, MEASUREMENTS = (
    "files",
    "recipe",
    "checkpoint",
    "certificate",
    "comparisons",
    "measurements",
)
_SHOWN = 20


@dataclass(frozen=True)
class _Given:
    recipe: str | Path | None
    checkpoint: Path | None
    checkpoint_key: str | None


def check_manifest(
    path: Path,
    *,
    recipe: str | Path | None = None,
    checkpoint: Path | None = None,
    checkpoint_key: str | None = None,
    step: Callable[[str], None] | None = None,
) -> ManifestCheck:
    """Return what became of each link of the manifest at, in or beside ``path``.

    ``recipe`` and ``checkpoint`` are those that the artifact was made from; None takes the bundled recipe of the
    recorded name and that recipe's checkpoint, where there are any. What is not at hand is skipped with the reason.
    Raises ArtifactError where there is no manifest.
    """
    say = step or (lambda message: None)
    manifest = manifest_of(path)
    seal, own = _manifest(manifest)
    try:
        artifact = read_artifact(manifest)
    except ArtifactError as error:
        link = Link("manifest", Verdict.FAIL, "it cannot be read", (*own.findings, error.found or error.message))
        names = (FILES, RECIPE, CHECKPOINT, CERTIFICATE, COMPARISONS, MEASUREMENTS)
        return ManifestCheck(
            manifest.parent.name, seal, (link, *(Link(name, Verdict.SKIPPED, "no manifest") for name in names))
        )
    given = _Given(recipe, checkpoint, checkpoint_key)
    say("hashing the files")
    files = _files(artifact)
    chosen, recipe_link = _recipe(artifact, given, manifest)
    say("loading the checkpoint")
    network, checkpoint_link = _checkpoint(artifact, chosen, given)
    say("checking the certificate")
    certificate = _certificate(artifact, manifest.parent, network)
    say("running the file")
    comparisons = rerun(artifact, network) if files.verdict is not Verdict.FAIL else _not_run()
    measurements = _measurements(artifact, manifest.parent)
    links = (own, files, recipe_link, checkpoint_link, certificate, comparisons, measurements)
    return ManifestCheck(artifact.path.name, seal, links)


def _link(name: str, detail: str, findings: tuple[str, ...] | list[str]) -> Link:
    shown = tuple(findings[:_SHOWN])
    if len(findings) > _SHOWN:
        shown = (*shown, f"and {len(findings) - _SHOWN} more")
    return Link(name, Verdict.FAIL if findings else Verdict.PASS, detail, shown)


def _not_run() -> Link:
    return Link(COMPARISONS, Verdict.SKIPPED, "the file is not the one that was exported, and was not run")


def _manifest(manifest: Path) -> tuple[str, Link]:
    """Return the manifest's own digest and whether its fields are those that it was written with."""
    try:
        content = manifest.read_bytes()
        record = json.loads(content)
        if not isinstance(record, dict):
            raise TypeError(f"{type(record).__name__} instead of an object")
    except (OSError, ValueError, TypeError, RecursionError) as error:
        return "", Link("manifest", Verdict.FAIL, "it is no JSON", (f"{type(error).__name__}: {error}",))
    if not is_sealed(record):
        return "", Link(
            "manifest",
            Verdict.FAIL,
            "it has no digests",
            ("written by an older deploykit, or taken out: export again",),
        )
    findings = [f"changed: {name}" for name in broken_fields(record)]
    try:
        same = rendered_manifest(record) == content
    except ValueError:
        same = False
    if not findings and not same:
        findings.append("changed: the spacing or order of the file")
    return str(record.get(SEAL, "")), _link("manifest", "each field has the digest that it was written with", findings)


def _files(artifact: Artifact) -> Link:
    findings = list(changed_files(artifact))
    if not findings:
        size = sum(item.size_bytes for item in artifact.files)
        if size != artifact.size_bytes or size != sum(_size(artifact, item) for item in artifact.files):
            findings.append(f"size_bytes: {artifact.size_bytes} recorded")
    detail = f"{len(artifact.files)} with the recorded SHA-256"
    missing = TARGETS[artifact.plan.target].missing()
    if missing:
        detail += f"; content hash not checked, not installed: {', '.join(missing)}"
    elif not findings:
        content = hash_items(part(artifact.plan.target, "export").content_items(artifact.path))
        if content != artifact.content_hash:
            findings.append(f"content_hash: {artifact.content_hash} recorded, {content} found")
    return _link(FILES, detail, findings)


def _size(artifact: Artifact, item: FileHash) -> int:
    return (artifact.path.parent / item.path).stat().st_size


def _recipe(artifact: Artifact, given: _Given, manifest: Path) -> tuple[Recipe | None, Link]:
    """Return the recipe that the artifact was made from, and whether the one at hand is that."""
    try:
        kept = recipe_from_table(artifact.recipe_table, manifest)
    except DeploykitError as error:
        return None, _link(RECIPE, "the manifest's copy is not valid", [error.found or error.message])
    if given.recipe is None and artifact.recipe not in bundled_recipes():
        return kept, Link(RECIPE, Verdict.SKIPPED, f"no recipe {artifact.recipe} at hand; give it with --recipe")
    try:
        at_hand = load_recipe(given.recipe or artifact.recipe)
    except DeploykitError as error:
        return kept, _link(RECIPE, "it cannot be read", [error.found or error.message])
    resized = sized(at_hand, artifact.plan.input_shapes)
    findings = []
    if at_hand.sha256 != artifact.recipe_sha256:
        findings.append(f"sha256: {artifact.recipe_sha256} recorded, {at_hand.sha256} found")
    if at_hand.name != artifact.recipe:
        findings.append(f"name: {artifact.recipe} recorded, {at_hand.name} found")
    table = resized.file.model_dump(mode="json")
    changed = [key for key in table.keys() | artifact.recipe_table.keys() if table.get(key) != kept_value(kept, key)]
    findings += [f"{key}: not as in the manifest's copy" for key in sorted(changed)]
    used = resized if not findings else replace(kept, path=at_hand.path, sha256=at_hand.sha256)
    return used, _link(RECIPE, f"{at_hand.name}, its bytes and each of its tables", findings)


def kept_value(kept: Recipe, key: str) -> object:
    """Return one top-level value of a manifest's own copy of the recipe."""
    return kept.file.model_dump(mode="json").get(key)


def _checkpoint(artifact: Artifact, recipe: Recipe | None, given: _Given) -> tuple[LoadedNetwork | None, Link]:
    if recipe is None:
        return None, Link(CHECKPOINT, Verdict.SKIPPED, "no recipe to load it with")
    path = given.checkpoint or recipe.checkpoint_path()
    if path is None or (given.checkpoint is None and not path.is_file()):
        return None, Link(CHECKPOINT, Verdict.SKIPPED, "it is not at hand; give it with --checkpoint")
    try:
        found = sha256_file(path)
        if found != artifact.checkpoint_sha256:
            if given.checkpoint is None:
                return None, Link(
                    CHECKPOINT,
                    Verdict.SKIPPED,
                    "made from another checkpoint than the recipe's own; give it with --checkpoint",
                )
            return None, _link(CHECKPOINT, path.name, [f"sha256: {artifact.checkpoint_sha256} recorded, {found} found"])
        network = load_network(recipe, checkpoint=path, key=given.checkpoint_key or _key(recipe))
    except DeploykitError as error:
        return None, _link(CHECKPOINT, path.name, [f"{error.message} {error.found or ''}".strip()])
    return network, _link(CHECKPOINT, f"{path.name} with the recorded SHA-256", [])


def _key(recipe: Recipe) -> str | None:
    return recipe.file.checkpoint.key if recipe.file.checkpoint else None


def _certificate(artifact: Artifact, folder: Path, network: LoadedNetwork | None) -> Link:
    item = artifact.certificate
    if item is None:
        return Link(CERTIFICATE, Verdict.FAIL, "the manifest names none", ("export again",))
    changed = file_finding(folder, item)
    try:
        read = read_certificate(folder / item.path)
    except ArtifactError as error:
        return _link(CERTIFICATE, item.path, [*changed, f"{error.message} {error.found}"])
    findings = [*changed, *_belongs(read, artifact)]
    detail = f"{len(read.certificate.blocks)} blocks"
    if network is None:
        findings += [f"changed: {name}" for name in read.broken]
        return _link(CERTIFICATE, f"{detail}; not computed again without the checkpoint", findings)
    try:
        check = compare_certificate(read, network)
    except VerificationError as error:
        return _link(CERTIFICATE, detail, [*findings, error.message])
    findings += [
        f"{one.where or 'certificate'}: {one.what}: {one.recorded} recorded, {one.found} found"
        for one in check.differences
    ]
    return _link(CERTIFICATE, f"{detail}, each folded, measured and bounded again", findings)


def _belongs(read: ReadCertificate, artifact: Artifact) -> list[str]:
    pairs = (
        ("recipe", read.certificate.recipe, artifact.recipe),
        ("recipe_sha256", read.certificate.recipe_sha256, artifact.recipe_sha256),
        ("checkpoint_sha256", read.certificate.checkpoint_sha256, artifact.checkpoint_sha256),
        ("input_shapes", read.certificate.input_shapes, artifact.plan.input_shapes),
    )
    return [
        f"{name}: {ours} in the certificate, {theirs} in the manifest" for name, ours, theirs in pairs if ours != theirs
    ]


def file_finding(folder: Path, item: FileHash) -> list[str]:
    """Return what is wrong with a file named in the manifest of ``folder``; nothing where its bytes are those."""
    path = folder / item.path
    if not path.is_file():
        return [f"{item.path}: missing"]
    found = sha256_file(path)
    return [] if found == item.sha256 else [f"{item.path}: sha256 {item.sha256} recorded, {found} found"]


def _measurements(artifact: Artifact, folder: Path) -> Link:
    if not artifact.measurements:
        return Link(MEASUREMENTS, Verdict.SKIPPED, "none kept; deploykit bench --keep adds one")
    findings: list[str] = []
    for item in artifact.measurements:
        findings += file_finding(folder, item) or measurement_findings(folder / item.path, artifact)
    return _link(MEASUREMENTS, f"{len(artifact.measurements)} of this file's content hash", findings)

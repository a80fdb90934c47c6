"""The baseline: a committed JSON file of the figures and hashes that later artifacts are held against."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploykit.atomic import replacing
from deploykit.errors import ArtifactError
from deploykit.gate_records import COUNTED, Measure, Observed
from deploykit.records import ExportPlan, to_json

DEFAULT_FILE = Path("gate-baseline.json")
KIND = "gate-baseline"
# Raised where a figure is counted otherwise: the figures of another version say nothing of growth.
VERSION = 1


@dataclass(frozen=True)
class BaselineArtifact:
    """One artifact as it was accepted: what it came from, its content, its figures as whole numbers.

    ``plan`` is the export plan as JSON; the file can be made again from it, the checkpoint and the recipe.
    """

    name: str
    recipe: str
    content_hash: str
    recipe_sha256: str
    checkpoint_sha256: str
    plan: Mapping[str, Any] = field(repr=False)
    figures: Mapping[Measure, int]


@dataclass(frozen=True)
class Baseline:
    """All accepted artifacts, in order of name."""

    artifacts: tuple[BaselineArtifact, ...]

    def of(self, name: str) -> BaselineArtifact | None:
        """Return the artifact called ``name``, or None."""
        return next((one for one in self.artifacts if one.name == name), None)


@dataclass(frozen=True)
class Change:
    """One difference between two baselines: a figure, a hash, or an artifact as a whole. None: not there."""

    artifact: str
    what: str
    before: str | None
    after: str | None


def accepted(observed: Observed, *, plan: ExportPlan, recipe_sha256: str, checkpoint_sha256: str) -> BaselineArtifact:
    """Return what a baseline keeps of an artifact: what is counted and the same on every machine."""
    figures = {}
    for measure in COUNTED:
        value = observed.figures[measure].value if measure in observed.figures else None
        if value is not None:
            figures[measure] = int(value)
    return BaselineArtifact(
        name=observed.subject.name,
        recipe=observed.subject.recipe,
        content_hash=observed.subject.content_hash,
        recipe_sha256=recipe_sha256,
        checkpoint_sha256=checkpoint_sha256,
        plan=to_json(plan),
        figures=figures,
    )


def updated(before: Baseline | None, now: Sequence[BaselineArtifact], *, whole: bool) -> Baseline:
    """Return ``before`` with the artifacts of ``now`` in the place of those of their names.

    ``whole``: they are all there are, and others are left out.
    """
    kept = {} if before is None or whole else {one.name: one for one in before.artifacts}
    both = {**kept, **{one.name: one for one in now}}
    return Baseline(tuple(both[name] for name in sorted(both)))


def changes(before: Baseline | None, after: Baseline) -> tuple[Change, ...]:
    """Return what differs, artifact by artifact, in order of name."""
    first = {} if before is None else {one.name: _fields(one) for one in before.artifacts}
    second = {one.name: _fields(one) for one in after.artifacts}
    found = []
    for name in sorted({*first, *second}):
        ours, theirs = first.get(name), second.get(name)
        if ours is None or theirs is None:
            found.append(
                Change(name, "artifact", None if ours is None else "there", None if theirs is None else "there")
            )
        for what in dict.fromkeys((*(ours or {}), *(theirs or {}))):
            one, other = (ours or {}).get(what), (theirs or {}).get(what)
            if one != other:
                found.append(Change(name, what, one, other))
    return tuple(found)


def _fields(one: BaselineArtifact) -> dict[str, str]:
    hashes = {
        "content": one.content_hash[:12],
        "recipe": one.recipe_sha256[:12],
        "checkpoint": one.checkpoint_sha256[:12],
        "plan": ", ".join(f"{key}={value}" for key, value in sorted(one.plan.items()) if value is not None),
    }
    return {**{measure.value: f"{value:,}" for measure, value in one.figures.items()}, **hashes}


def rendered_baseline(baseline: Baseline) -> bytes:
    """Return the bytes of a baseline's file: the same artifacts give the same bytes, and one figure is one line."""
    record = {"kind": KIND, "version": VERSION, "artifacts": to_json(baseline.artifacts)}
    return (json.dumps(record, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def write_baseline(baseline: Baseline, path: Path) -> None:
    """Write ``baseline`` to ``path``, whole or not at all. Raises ArtifactError where it cannot be written."""
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(rendered_baseline(baseline))
    except OSError as error:
        raise ArtifactError(
            "The baseline cannot be written.",
            where=str(path),
            found=error.strerror or str(error),
            expected="a file in a folder that can be written",
            next_step="name another with --baseline FILE",
        ) from error


def read_baseline(path: Path) -> Baseline:
    """Return the baseline in the file at ``path``.

    Raises ArtifactError where it cannot be read, is damaged, or is of another version.
    """
    try:
        record = json.loads(path.read_bytes())
        if not isinstance(record, dict) or record.get("kind") != KIND:
            raise _damaged(path, f"no {KIND}")
        if record.get("version") != VERSION or isinstance(record.get("version"), bool):
            raise ArtifactError(
                "The baseline is of another version of deploykit, whose figures cannot be compared.",
                where=str(path),
                found=f"version {record.get('version')}",
                expected=f"version {VERSION}",
                next_step="make it anew with deploykit gate --update-baseline, and look at the difference",
            )
        artifacts = tuple(_artifact(one) for one in record["artifacts"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from error
    names = [one.name for one in artifacts]
    if len(set(names)) != len(names):
        raise _damaged(path, "an artifact comes twice: " + ", ".join(sorted({n for n in names if names.count(n) > 1})))
    return Baseline(artifacts)


def _artifact(body: dict[str, Any]) -> BaselineArtifact:
    texts = {key: body[key] for key in ("name", "recipe", "content_hash", "recipe_sha256", "checkpoint_sha256")}
    if not all(isinstance(value, str) for value in texts.values()) or not isinstance(body["plan"], dict):
        raise TypeError("a name or a hash that is no text, or a plan that is no table")
    figures = {Measure(key): value for key, value in body["figures"].items()}
    for key, value in figures.items():
        if type(value) is not int or value < 0:
            raise ValueError(f"{key} is {value!r} and no whole number")
    return BaselineArtifact(**texts, plan=body["plan"], figures=figures)


def _damaged(path: Path, found: str) -> ArtifactError:
    return ArtifactError(
        "The baseline cannot be read.",
        where=str(path),
        found=found[:300],
        expected="a file that deploykit gate --update-baseline wrote",
        next_step="restore it from version control, or make it anew with --update-baseline and look at the difference",
    )

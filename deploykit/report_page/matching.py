"""Records beside the artifacts that they are of: by content hash, never by name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from deploykit.evaluation.records import Evaluation
from deploykit.gate_measuring.subjects import stable_name
from deploykit.gate_records import Finding
from deploykit.latency.machine import cores_busy
from deploykit.latency_records import Warned
from deploykit.records import Verification
from deploykit.report_page.records import (
    Collection,
    Dossier,
    Entry,
    Left,
    LeftOut,
    Matched,
    Network,
    Record,
    Scored,
    Timed,
    Unmeasured,
)
from deploykit.verification.records import ArtifactVerification
from deploykit.vocab import InputKind, Layout, OutputKind


def match(collection: Collection) -> Matched:
    """Return the networks of ``collection`` with what is known of each artifact.

    A record of a file that was changed since is stale, as is one of a content hash or checkpoint that is not here; its
    rows are listed and take no part in anything else.
    """
    names = _names(collection.entries)
    sound = {one.artifact.content_hash for one in collection.entries if not one.changed and not one.broken}
    matching = _Matching(collection, sound)
    for record in collection.records:
        matching.take(record)
    by_network: dict[tuple[str, str], list[Dossier]] = defaultdict(list)
    for entry, name in zip(collection.entries, names, strict=True):
        artifact = entry.artifact
        by_network[artifact.recipe, artifact.checkpoint_sha256].append(matching.dossier(name, entry))
    networks = tuple(matching.network(*key, dossiers) for key, dossiers in sorted(by_network.items()))
    return Matched(
        networks=networks,
        damaged=collection.damaged,
        unmeasured=tuple(dict.fromkeys(matching.unmeasured)),
        warnings=tuple(dict.fromkeys(matching.warnings)),
        records=tuple(one for one in collection.records if one.path in matching.used),
        left_out=(*collection.left_out, *matching.left_out),
    )


def _names(entries: Sequence[Entry]) -> list[str]:
    """Return a name for each artifact: no longer than tells it from the others."""
    short = [_short_name(entry) for entry in entries]
    names = [
        stable_name(entry.artifact) if short.count(name) > 1 else name
        for entry, name in zip(entries, short, strict=True)
    ]
    return [
        f"{name} ({entry.manifest.parent.name})" if names.count(name) > 1 else name
        for entry, name in zip(entries, names, strict=True)
    ]


def _short_name(entry: Entry) -> str:
    plan = entry.artifact.plan
    words = [entry.artifact.recipe, plan.target.value, plan.precision.value]
    words += [plan.input_kind.value] if plan.input_kind is not InputKind.TENSOR else []
    words += [plan.output_kind.value] if plan.output_kind is not OutputKind.LOGITS else []
    words += [plan.layout.value] if plan.layout is not Layout.NCHW else []
    return " ".join(words)


def _preferred(found: Iterable[Timed]) -> tuple[Timed, ...]:
    """Return ``found``: inference alone before whole photos, few threads before many, the newest first."""
    newest = sorted(found, key=lambda one: one.started, reverse=True)
    return tuple(sorted(newest, key=lambda one: (bool(one.latency.steps), one.latency.threads)))


def _largest(found: Iterable[Scored]) -> tuple[Scored, ...]:
    """Return ``found``, the one with the most images first."""
    return tuple(sorted(found, key=lambda one: -len(one.evaluation.images)))


def _without_differences(one: Evaluation) -> Evaluation:
    return replace(one, summaries=tuple(replace(summary, difference=None) for summary in one.summaries))


class _Matching:
    """Takes records one after the other, and then says what is known of each artifact and network."""

    def __init__(self, collection: Collection, sound: set[str]) -> None:
        self._sound = sound
        self._here = {one.artifact.content_hash for one in collection.entries}
        self._checkpoints = {one.artifact.checkpoint_sha256 for one in collection.entries}
        self._recipes = {one.artifact.recipe for one in collection.entries}
        self._seals = {one.seal for one in collection.entries if one.seal}
        self._latencies: dict[str, list[Timed]] = defaultdict(list)
        self._eager: dict[str, list[Timed]] = defaultdict(list)
        self._scores: dict[str, list[Scored]] = defaultdict(list)
        self._of_checkpoints: dict[str, list[Scored]] = defaultdict(list)
        self._verified: dict[str, list[ArtifactVerification]] = defaultdict(list)
        self._reparam: dict[str, Verification] = {}
        self._findings: dict[str, list[Finding]] = defaultdict(list)
        self._gated: set[str] = set()
        self.unmeasured: list[Unmeasured] = []
        self.warnings: list[Warned] = []
        self.left_out: list[LeftOut] = []
        self.used: set[str] = set()

    def take(self, record: Record) -> None:
        """Sort the parts of ``record`` by what they are of; what is of nothing here is listed as stale."""
        before = len(self.left_out)
        matched = getattr(self, "_take_" + record.kind.replace("-", "_"))(record)
        if matched or len(self.left_out) == before:
            self.used.add(record.path)

    def _fits(self, record: Record, content_hash: str | None, what: str) -> bool:
        if content_hash in self._sound:
            return True
        if content_hash is None:
            reason = f"{what}: the record does not say which file it is of; measure again"
        elif content_hash in self._here:
            reason = f"{what}: the file was changed since it was exported"
        else:
            reason = f"{what}: of content hash {content_hash[:12]}, which no file here has"
        self.left_out.append(LeftOut(record.path, Left.STALE, reason))
        return False

    def _take_bench(self, record: Record) -> bool:
        run, matched = record.body, False
        for latency in run.measured:
            timed = Timed(latency, run.machine, run.started, record.path, cores_busy(run.conditions))
            if latency.target is None and latency.network in self._recipes:
                self._eager[latency.network].append(timed)
                matched = True
            elif latency.samples_s and self._fits(record, latency.content_hash, latency.artifact):
                self._latencies[latency.content_hash].append(timed)
                matched = True
        self.unmeasured += [
            Unmeasured(one.artifact, one.reason, record.path) for one in run.skipped if not one.elsewhere
        ]
        if not run.complete:
            self.unmeasured.append(Unmeasured("the rest of the run", run.ended or "it ended early", record.path))
        if matched:
            self.warnings += run.warnings
        return matched or bool(run.skipped)

    def _take_evaluate(self, record: Record) -> bool:
        rows = record.body.evaluations
        # Differences are those to the first subject, which need not be the checkpoint.
        reference = rows[0].checkpoint_sha256 if rows and rows[0].target is None else None
        taken = []
        for one in rows:
            known = one if one.checkpoint_sha256 == reference else _without_differences(one)
            taken.append(self._score(record, known, record.body.data))
        return any(taken)

    def _score(self, record: Record, one: Evaluation, data: str) -> bool:
        scored = Scored(one, data, record.path)
        if one.target is None and one.checkpoint_sha256 in self._checkpoints:
            self._of_checkpoints[one.checkpoint_sha256].append(scored)
            return True
        if one.target is None:
            reason = f"{one.subject}: of checkpoint {one.checkpoint_sha256[:12]}, which no file here was made from"
            self.left_out.append(LeftOut(record.path, Left.STALE, reason))
            return False
        if self._fits(record, one.content_hash, one.subject):
            self._scores[str(one.content_hash)].append(scored)
            return True
        return False

    def _take_verify(self, record: Record) -> bool:
        one = record.body
        if not self._fits(record, one.content_hash, f"{one.recipe} {one.target} {one.precision}"):
            return False
        self._verified[one.content_hash].append(one)
        return True

    def _take_verify_reparam(self, record: Record) -> bool:
        matched = False
        for one in record.body:
            if one.checkpoint_sha256 in self._checkpoints:
                known = self._reparam.get(one.checkpoint_sha256)
                # Of two verdicts on one checkpoint the worse one counts.
                if known is None or not one.passed:
                    self._reparam[one.checkpoint_sha256] = one
                matched = True
            else:
                reason = f"{one.recipe}: of checkpoint {one.checkpoint_sha256[:12]}, which no file here was made from"
                self.left_out.append(LeftOut(record.path, Left.STALE, reason))
        return matched

    def _take_gate(self, record: Record) -> bool:
        report = record.body
        if not report.subjects:
            reason = "the gate does not say which files it judged; run it again"
            self.left_out.append(LeftOut(record.path, Left.STALE, reason))
            return False
        fresh = {
            one.name: one.content_hash for one in report.subjects if self._fits(record, one.content_hash, one.name)
        }
        self._gated |= set(fresh.values())
        for finding in report.findings:
            if finding.subject in fresh:
                self._findings[fresh[finding.subject]].append(finding)
        return bool(fresh)

    def _take_compare(self, record: Record) -> bool:
        sides = [side for side in (record.body.first, record.body.second) if side.content_hash is not None]
        known = [self._fits(record, side.content_hash, side.name) for side in sides]
        return bool(known) and all(known)

    def _take_quantization_report(self, record: Record) -> bool:
        report = record.body
        if report.checkpoint_sha256 in self._checkpoints:
            return True
        reason = f"{report.recipe}: of checkpoint {report.checkpoint_sha256[:12]}, which no file here was made from"
        self.left_out.append(LeftOut(record.path, Left.STALE, reason))
        return False

    def _take_sensitivity(self, record: Record) -> bool:
        if record.body.recipe in self._recipes:
            return True
        self.left_out.append(LeftOut(record.path, Left.STALE, f"{record.body.recipe}: no file here is of this recipe"))
        return False

    def _take_verify_manifest(self, record: Record) -> bool:
        if record.body.manifest_sha256 in self._seals:
            return True
        reason = f"{record.body.artifact}: of another manifest than any here"
        self.left_out.append(LeftOut(record.path, Left.STALE, reason))
        return False

    def _take_pipeline(self, record: Record) -> bool:
        del record
        return True

    def _take_diagnosis(self, record: Record) -> bool:
        del record
        return True

    def dossier(self, name: str, entry: Entry) -> Dossier:
        """Return what is known of the artifact of ``entry``; nothing of one that was changed."""
        key = entry.artifact.content_hash if entry.artifact.content_hash in self._sound else ""
        if entry.changed or entry.broken:
            key = ""
        return Dossier(
            name=name,
            entry=entry,
            latencies=_preferred(self._latencies.get(key, ())),
            scores=_largest(self._scores.get(key, ())),
            verifications=tuple(self._verified.get(key, ())),
            findings=tuple(self._findings.get(key, ())),
            gated=key in self._gated,
        )

    def network(self, recipe: str, checkpoint_sha256: str, dossiers: Sequence[Dossier]) -> Network:
        """Return the network of ``dossiers`` with what is known of its checkpoint."""
        return Network(
            recipe,
            checkpoint_sha256,
            tuple(dossiers),
            verification=self._reparam.get(checkpoint_sha256),
            scores=_largest(self._of_checkpoints.get(checkpoint_sha256, ())),
            eager=_preferred(self._eager.get(recipe, ())),
        )

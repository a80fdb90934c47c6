"""The files of a baseline, which only keeps hashes: taken from a cache by hash, or made again from the checkpoint."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from deploykit.artifact import read_artifact, require_unchanged, staged
from deploykit.chatter import contained
from deploykit.errors import ArtifactError, DeploykitError
from deploykit.gate.baseline import BaselineArtifact
from deploykit.gate_measuring.counts import content_of
from deploykit.gate_measuring.subjects import Gated
from deploykit.lowering import ExportOptions, optional_passes, plan_export
from deploykit.pipeline import export
from deploykit.quantize.calibration import calibration_set
from deploykit.recipe import Recipe
from deploykit.records import Artifact, ExportPlan, to_json
from deploykit.verification.reference import find_network
from deploykit.verify.samples import draw_samples

DEFAULT_CACHE = Path(".deploykit") / "baseline"


def keep(artifact: Artifact, cache: Path) -> None:
    """Put a copy of the folder of ``artifact`` into ``cache``, under its content hash."""
    place = cache / artifact.content_hash
    if not place.exists():
        with staged(place) as folder:
            shutil.copytree(artifact.path.parent, folder, dirs_exist_ok=True)


def baseline_file(before: BaselineArtifact, now: Gated, cache: Path, say: Callable[[str], None]) -> Path | str:
    """Return the file of ``before`` in ``cache``, made there again if it was not; a text says why it cannot be had.

    Raises ArtifactError where the cache holds another file than its name says: it is refused, not replaced.
    """
    place = cache / before.content_hash
    if not place.exists():
        say(f"making the baseline of {before.name} again")
        reason = _rebuilt(before, now, cache, say)
        if reason:
            return reason
    artifact = require_unchanged(read_artifact(place))
    content = content_of(artifact)
    if not content == artifact.content_hash == before.content_hash:
        raise ArtifactError(
            "The cache holds another file than its name says.",
            where=str(place),
            found=f"content {content[:12]}",
            expected=f"content {before.content_hash[:12]}, that of the baseline of {before.name}",
            next_step="remove the folder; the file is made again from checkpoint and recipe",
        )
    return artifact.path


def _rebuilt(before: BaselineArtifact, now: Gated, cache: Path, say: Callable[[str], None]) -> str:
    """Make the file of ``before`` and put it into ``cache``; return why that cannot be done, else an empty text."""
    if now.artifact.checkpoint_sha256 != before.checkpoint_sha256:
        return (
            f"the baseline was made from another checkpoint ({before.checkpoint_sha256[:12]}), and its file is not in "
            f"{cache}: keep the cache, or update the baseline"
        )
    if before.plan.get("target") != now.subject.target.value:
        return "the baseline's plan is that of another target"
    try:
        options = options_of(now.recipe, now.artifact.plan, before)
        if isinstance(options, str):
            return options
        with tempfile.TemporaryDirectory(prefix="deploykit-gate-") as folder, contained():
            network = find_network(now.recipe, now.artifact, None, None)
            samples = draw_samples(now.recipe)
            (made,) = export(network, [now.subject.target], samples, Path(folder), options, step=say)
            if made.content_hash != before.content_hash:
                return "checkpoint and recipe make another file today than when the baseline was taken: keep the cache"
            keep(made, cache)
    except DeploykitError as error:
        return f"the baseline's file cannot be made again: {error.message} {error.found or ''}".strip()
    return ""


def options_of(recipe: Recipe, plan: ExportPlan, before: BaselineArtifact) -> ExportOptions | str:
    """Return the options that give the plan of ``before``, which differs from ``plan`` in passes and integers alone."""
    recorded = before.plan
    integers = recorded.get("quantization") or {}
    calibration = integers.get("calibration")
    if calibration and calibration_set(recipe).record.sha256 != calibration:
        return "the baseline was calibrated on images that are not here: keep the cache"
    quantization = plan.quantization
    estimator = quantization.estimator if quantization is not None else None
    if (estimator.value if estimator else None) != integers.get("estimator"):
        return "the baseline has integers of another estimator: keep the cache"
    optional = set(optional_passes(plan.target))
    options = ExportOptions(
        precision=plan.precision,
        input_kind=plan.input_kind,
        output_kind=plan.output_kind,
        layout=plan.layout,
        opset=recorded.get("opset"),
        minimum_os=recorded.get("minimum_os"),
        passes=tuple(name for name in recorded.get("passes", ()) if name in optional),
        estimator=estimator,
        equalization=integers.get("equalization"),
        correct_biases=integers.get("correct_biases", True),
        max_drop=integers.get("max_drop"),
        calibration=calibration,
        integer_io=integers.get("integer_io", False),
    )
    if to_json(plan_export(recipe, plan.target, options)) != dict(recorded):
        return "no options of today give the plan of the baseline: keep the cache, or update the baseline"
    return options

"""What was measured of the same files before, and is not measured again: records of ``verify`` and ``evaluate``."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deploykit.evaluation.dataset import HELD_OUT_SEEDS, SyntheticSet
from deploykit.evaluation.records import Evaluation, EvaluationRun
from deploykit.gate_records import Measure, Measurement
from deploykit.records import Artifact
from deploykit.verification.records import ArtifactVerification

POINTS = 100.0
# The metric of evaluate, and whether more of it is better.
_METRICS = {
    Measure.MIOU_LOST: ("two_class_miou", True),
    Measure.BOUNDARY_F1_LOST: ("boundary_f1", True),
    Measure.FLICKER_ADDED: ("flicker", False),
}


@dataclass(frozen=True)
class Known:
    """Records that earlier stages of one pipeline wrote; whoever gives them has seen that nobody changed them.

    They are of the recipes and checkpoints that the gate would take.
    """

    verifications: tuple[ArtifactVerification, ...] = ()
    evaluations: tuple[EvaluationRun, ...] = ()

    def verification(self, artifact: Artifact) -> ArtifactVerification | None:
        """Return what ``verify`` found on ``artifact``."""
        return next((one for one in self.verifications if _is_of(artifact, one.path, one.content_hash)), None)

    def losses(self, artifact: Artifact) -> Mapping[Measure, Measurement]:
        """Return what ``evaluate`` found that ``artifact`` loses; nothing of what is undefined there."""
        _, found = self._evaluation(artifact)
        rows = {} if found is None else {measure: lost(found, measure) for measure in _METRICS}
        return {measure: row for measure, row in rows.items() if row.value is not None}

    def settings(self, artifact: Artifact) -> str:
        """Return the options of ``evaluate`` that gave its losses; empty where there are none."""
        run, _ = self._evaluation(artifact)
        if run is None:
            return ""
        synthetic = 0 < run.found <= len(HELD_OUT_SEEDS) and run.data == SyntheticSet(run.found).description
        images = f"--samples {run.found}" if synthetic else f"--data {shlex.quote(run.data)}"
        return f"{images} --clips {len(run.settings.clip_seeds)}"

    def _evaluation(self, artifact: Artifact) -> tuple[EvaluationRun | None, Evaluation | None]:
        for run in self.evaluations:
            for one in run.evaluations[1:]:
                if _is_of(artifact, one.path, one.content_hash):
                    return run, one
        return None, None


def _is_of(artifact: Artifact, path: Path | None, content_hash: str | None) -> bool:
    # Folders are named after their plans, and the folder above them may have been moved since.
    return path is not None and path.parts[-2:] == artifact.path.parts[-2:] and content_hash == artifact.content_hash


def lost(evaluation: Evaluation, measure: Measure) -> Measurement:
    """Return the points that ``evaluation`` lost against the first of its run; of flicker those that it added."""
    metric, more_is_better = _METRICS[measure]
    summary = next((one for one in evaluation.summaries if one.metric == metric), None)
    if summary is None or summary.difference is None:
        return Measurement(None, f"{metric} is not defined on these images")
    points = POINTS * summary.difference.value
    return Measurement(-points if more_is_better else points)

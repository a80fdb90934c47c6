"""The versioned record of a whole run: printed as JSON, and kept beside the artifacts for the report to read."""

from __future__ import annotations

import json
from typing import Any

from deploykit.atomic import replacing
from deploykit.errors import ArtifactError
from deploykit.records import to_json, versioned
from deploykit.stages.records import PipelineRun

RUN_RECORD = "pipeline.json"
KIND = "pipeline"


def record_of_run(run: PipelineRun) -> dict[str, Any]:
    """Return ``run`` as a versioned record, with its verdict."""
    verdict = {"passed": run.passed, "exit_code": run.exit_code, "nothing_to_do": run.nothing_to_do}
    return versioned(KIND, {**to_json(run), **verdict})


def write_run_record(run: PipelineRun) -> None:
    """Write the record of ``run`` into its folder, whole or not at all; raises ArtifactError where it cannot be."""
    path = run.output_dir / RUN_RECORD
    try:
        with replacing(path) as temporary:
            temporary.write_text(
                json.dumps(record_of_run(run), indent=2, sort_keys=True, allow_nan=False) + "\n", "utf-8"
            )
    except OSError as error:
        raise ArtifactError(
            "The record of the run cannot be written.", where=str(path), found=error.strerror or str(error)
        ) from error

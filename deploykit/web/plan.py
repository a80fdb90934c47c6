"""What the page is told: each file with the contract of its manifest, and the host's own mask of one picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploykit.artifact import MANIFEST
from deploykit.chatter import contained
from deploykit.errors import ArtifactError, DeploykitError
from deploykit.images.preprocess import Pixels
from deploykit.images.synthetic import synthesize
from deploykit.latency.end_to_end import require_photos
from deploykit.latency.measure import Protocol
from deploykit.latency.subjects import Subject
from deploykit.latency_records import SkippedLatency
from deploykit.recipe import Recipe, recipe_from_table
from deploykit.records import TensorRecord
from deploykit.targets.base import Runtime, require_fixed_shapes
from deploykit.targets.table import TARGETS, part
from deploykit.verify.contract import classes_in, two_at_least
from deploykit.verify.samples import PORTRAIT_SEED, feed, picture_sample, read_back
from deploykit.vocab import OutputKind, Target

PLAN_VERSION = 1
# The share of pixels of a file's mask that has to be the host's for the file to be timed.
REQUIRED_AGREEMENT = 0.999
RUNS_IN_A_PAGE = (Target.TFLITE, Target.ONNX)
ACCELERATORS = ("wasm", "webgpu", "webnn")
# Taller than wide inputs, wider and square ones: the picture is of another shape than all of them.
PICTURE_WIDTH, PICTURE_HEIGHT = 640, 480
_TOP = 24
# The number formats whose tensors each runtime takes in a page.
_DTYPES = {
    Target.TFLITE: ("float32", "int32", "uint8"),
    Target.ONNX: ("float32", "int32", "uint8", "int8"),
}
_LIMITS = (
    "min_runs",
    "min_seconds",
    "max_seconds",
    "precision_target",
    "warmup_runs",
    "warmup_seconds",
    "max_warmup_seconds",
    "warmup_change",
    "block_seconds",
    "seed",
)
Content = Path | bytes


@dataclass(frozen=True)
class PagePlan:
    """``subjects`` that the page runs and what it was told of them; ``files``: path in the web folder → content."""

    subjects: tuple[Subject, ...]
    skipped: tuple[SkippedLatency, ...]
    body: dict[str, Any]
    files: Mapping[str, Content]


def make_page_plan(
    subjects: Sequence[Subject],
    protocol: Protocol,
    *,
    threads: Sequence[int] = (1,),
    accelerators: Sequence[str] = ("wasm",),
    reports: bool = True,
    report: Callable[[str], None] | None = None,
) -> PagePlan:
    """Return the plan for ``subjects``; the host runs each of them once, for the mask that the page has to make too.

    What a page cannot run is skipped with the reason. ``reports``: whether a command listens for results.

    Raises ArtifactError where nothing is left, and for a file that its own runtime cannot load.
    """
    say = report or (lambda message: None)
    picture = bundled_picture()
    kept: list[Subject] = []
    skipped: list[SkippedLatency] = []
    rows: list[dict[str, Any]] = []
    files: dict[str, Content] = {"files/picture.rgba": _with_alpha(picture)}
    for subject in subjects:
        reason = unfit(subject)
        if not reason:
            say(f"masks of {subject.name} on this machine")
            row, more, reason = _described(subject, len(rows), picture)
            if not reason:
                kept.append(subject)
                rows.append(row)
                files.update(more)
        if reason:
            skipped.append(SkippedLatency(subject.name, reason))
    if not kept:
        raise ArtifactError(
            "There is no file that a page can run.",
            found="; ".join(f"{one.artifact}: {one.reason}" for one in skipped) or "no artifact",
            expected="TFLite or ONNX files that deploykit export wrote",
            next_step="deploykit export --target tflite --target onnx",
        )
    limits = protocol.limits()
    body = {
        "version": PLAN_VERSION,
        "reports": reports,
        "protocol": {name: limits[name] for name in _LIMITS},
        "threads": list(threads),
        "accelerators": list(accelerators),
        "required_agreement": REQUIRED_AGREEMENT,
        "picture": {"file": "files/picture.rgba", "width": PICTURE_WIDTH, "height": PICTURE_HEIGHT},
        "subjects": rows,
    }
    return PagePlan(tuple(kept), tuple(skipped), body, files)


def bundled_picture() -> Pixels:
    """Return the picture (480, 640, 3) in RGB on which masks are compared: a drawn portrait, of no real person."""
    return np.ascontiguousarray(synthesize(PORTRAIT_SEED, PICTURE_WIDTH).image[_TOP : _TOP + PICTURE_HEIGHT])


def unfit(subject: Subject) -> str:
    """Return why a page cannot run ``subject``, or an empty text."""
    if subject.target not in RUNS_IN_A_PAGE:
        return f"no browser runs {subject.target} files"
    if subject.artifact is None or not subject.artifact.recipe_table:
        return "it has no manifest, which says how photos go into it and what comes out"
    if TARGETS[subject.target].missing():
        row = TARGETS[subject.target]
        return f"its masks cannot be made here: not installed: {', '.join(row.missing())}; {row.install_command()}"
    return ""


def _described(subject: Subject, index: int, picture: Pixels) -> tuple[dict[str, Any], dict[str, Content], str]:
    """Return what the page is told of ``subject``, its files, and why it cannot run it, or an empty text."""
    artifact = subject.artifact
    assert artifact is not None
    recipe = recipe_from_table(artifact.recipe_table, artifact.path.parent / MANIFEST)
    kind = artifact.plan.output_kind
    try:
        _, scored = require_photos(recipe)
    except DeploykitError as error:
        return {}, {}, f"{error.message} {error.found}"
    with contained():
        runtime: Runtime
        with part(subject.target, "runtime").open_artifact(subject.path, 1) as runtime:
            require_fixed_shapes(subject.path, runtime.inputs)
            inputs, outputs = runtime.inputs, runtime.outputs
            given = feed(picture_sample(recipe, picture), inputs, recipe)
            found = read_back(runtime.run(given), outputs)
    strange = {record.dtype for record in (*inputs, *outputs)} - set(_DTYPES[subject.target])
    if strange:
        return {}, {}, f"its runtime takes no tensors of {', '.join(sorted(strange))} in a page"
    stem = f"files/{index}"
    files: dict[str, Content] = {
        f"{stem}{TARGETS[subject.target].suffix}": subject.path.resolve(),
        f"{stem}-mask.bin": host_classes(np.asarray(found[scored.name]), kind).tobytes(),
    }
    rows = []
    for place, record in enumerate(inputs):
        name = f"{stem}-input-{place}.bin"
        files[name] = np.ascontiguousarray(given[record.name]).tobytes()
        rows.append(_input(record, recipe, name))
    row = {
        "name": subject.name,
        "label": subject.name,
        "network": artifact.recipe,
        "target": str(subject.target),
        "precision": str(artifact.plan.precision),
        "size_bytes": subject.size_bytes,
        "content_hash": artifact.content_hash,
        "file": f"{stem}{TARGETS[subject.target].suffix}",
        "inputs": rows,
        "outputs": [_tensor(record) for record in outputs],
        "scored": scored.name,
        "output_kind": str(kind),
        "mask": f"{stem}-mask.bin",
        "session_options": _session_options(subject),
    }
    return row, files, ""


def host_classes(scores: NDArray[np.generic], kind: OutputKind) -> NDArray[np.uint8]:
    """Return the class (H, W) of each pixel of ``scores`` (1, C, H, W), 255 where it has none."""
    whole = two_at_least(np.asarray(scores, np.float64)) if kind is OutputKind.LOGITS else scores
    classes = classes_in(whole, kind)[0]
    return np.where(classes < 0, 255, classes).astype(np.uint8)


def _session_options(subject: Subject) -> dict[str, str]:
    """Return the options of ONNX Runtime that do not depend on the processor of this machine."""
    if subject.target is not Target.ONNX:
        return {}
    options: dict[str, str] = part(Target.ONNX, "runtime").integer_options(subject.path)
    return {key: value for key, value in options.items() if key == "session.disable_quant_qdq"}


def _tensor(record: TensorRecord) -> dict[str, Any]:
    return {
        "name": record.name,
        "shape": list(record.shape),
        "dtype": record.dtype,
        "layout": str(record.layout),
        "scale": record.scale,
        "zero_point": record.zero_point,
    }


def _input(record: TensorRecord, recipe: Recipe, file: str) -> dict[str, Any]:
    item = next(one for one in recipe.file.inputs if one.name == record.name)
    image = None
    if item.kind == "image":
        # Pixels go in as the file wants them; the network's own tensor is in the order of the recipe.
        pixels = record.dtype == "uint8"
        image = {
            "color_order": str((record.color_order if pixels else None) or item.color_order),
            "mean": np.broadcast_to(item.mean, (3,)).tolist(),
            "scale": np.broadcast_to(item.scale, (3,)).tolist(),
            "rule": item.resize.rule,
            "filter": item.resize.filter,
            "pad_value": item.resize.pad_value,
        }
    feedback = None
    if item.feedback is not None:
        source = next(output for output in recipe.file.outputs if output.name == item.feedback.output)
        feedback = {
            "output": item.feedback.output,
            "class_index": source.classes.index(item.feedback.class_name),
            "first": item.feedback.first,
        }
    return {**_tensor(record), "image": image, "feedback": feedback, "file": file}


def _with_alpha(pixels: Pixels) -> bytes:
    opaque = np.full((*pixels.shape[:2], 1), 255, np.uint8)
    return bytes(np.concatenate([pixels, opaque], axis=2))

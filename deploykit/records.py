"""Frozen result records and their versioned JSON (standard library only)."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from deploykit.vocab import ColorOrder, Estimator, InputKind, Layout, OutputKind, Precision, Target

RECORD_VERSION = 1


@dataclass(frozen=True)
class Fired:
    """One place where a pass changed the graph: ``modules`` it came from, and what was done."""

    modules: tuple[str, ...]
    detail: str


@dataclass(frozen=True)
class Skipped:
    """One place that a pass looked at and left alone, with the reason."""

    module: str
    reason: str


@dataclass(frozen=True)
class PassReport:
    """What one pass did: a pass that did nothing says so by empty tuples."""

    name: str
    fired: tuple[Fired, ...] = ()
    skipped: tuple[Skipped, ...] = ()

    def reasons(self) -> dict[str, int]:
        """Return reason → count over the skipped places."""
        counts: dict[str, int] = {}
        for skip in self.skipped:
            counts[skip.reason] = counts.get(skip.reason, 0) + 1
        return counts


@dataclass(frozen=True)
class Tolerance:
    """The bounds of one comparison, each ``None`` where it does not apply, and why they are what they are."""

    reason: str
    max_abs_error: float | None = None
    relative_l2: float | None = None
    mask_agreement: float | None = None
    wrong_pixels: int | None = None


@dataclass(frozen=True)
class Comparison:
    """One output compared with its reference over all samples.

    ``relative_l2`` is ``‖a-b‖₂ / ‖b‖₂``; ``snr_db`` is ``10·log10(‖b‖² / ‖a-b‖²)``; ``mask_agreement`` is the
    share of pixels of one class in both; ``wrong_pixels`` counts those whose class differs although the
    reference's margin exceeds twice the tolerance. ``worst_index`` locates the largest error (sample first).
    ``failures`` says which bounds were exceeded, and is empty for a pass. NaN exceeds every bound.
    """

    output: str
    samples: int
    max_abs_error: float
    median_abs_error: float
    relative_l2: float
    snr_db: float
    mask_agreement: float | None
    wrong_pixels: int | None
    worst_index: tuple[int, ...]
    tolerance: Tolerance
    failures: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether every bound was kept."""
        return not self.failures


@dataclass(frozen=True)
class Calibration:
    """The images that ranges come from; the last ``judging`` of them decided what stays in float instead.

    ``sha256`` is that of names, sizes and pixels, in order.
    """

    source: str
    images: int
    judging: int
    sha256: str
    names: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class QuantizationPlan:
    """What decides how integers are chosen. ``estimator`` and ``equalization`` None: by measurement.

    ``equalization`` is the exponent of the scales, 0 for none. ``max_drop`` are points of mIoU between the masks of
    the file and those of the float network that may be lost on the judging images before a layer is left in float;
    None leaves none. ``calibration`` is the SHA-256 of the images. With ``integer_io`` the file takes and returns the
    integers themselves, whose scales it states.
    """

    estimator: Estimator | None
    equalization: float | None
    correct_biases: bool
    max_drop: float | None
    calibration: str | None
    integer_io: bool = False


@dataclass(frozen=True)
class Trade:
    """What keeping the activations of so many layers in float gave: points of mIoU lost, and bytes."""

    kept: int
    drop_points: float
    weight_bytes: int
    file_bytes: int


@dataclass(frozen=True)
class KeptLayer:
    """A layer whose activations stay in float, and the SNR of the outputs in dB where it alone was quantized."""

    layer: str
    alone_snr_db: float


@dataclass(frozen=True)
class Quantization:
    """How a file came to its integers. Bytes are those of all weights with their scales, here and in fp32.

    ``processor`` names what calibrated: scales may differ in their last digits on another one. ``shared`` counts the
    groups of activations that had to take one range together.
    """

    layers: int
    activations: int
    weights: int
    weight_bytes: int
    float_weight_bytes: int
    processor: str
    calibration: Calibration | None = None
    estimator: Estimator | None = None
    equalization: float = 0.0
    corrected_biases: int = 0
    kept: tuple[KeptLayer, ...] = ()
    trades: tuple[Trade, ...] = ()
    shared: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExportPlan:
    """Everything that decides how a file is made; its hash names the artifact's folder."""

    target: Target
    precision: Precision
    layout: Layout
    input_kind: InputKind
    output_kind: OutputKind
    input_shapes: tuple[tuple[int, ...], ...]
    passes: tuple[str, ...]
    opset: int | None = None
    minimum_os: str | None = None
    quantization: QuantizationPlan | None = None

    def digest(self) -> str:
        """Return the SHA-256 of the plan's canonical JSON, in hexadecimal; a float plan's says nothing of integers."""
        body = to_json(self)
        if self.quantization is None:
            del body["quantization"]
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()

    def folder(self) -> str:
        """Return the name of the artifact's folder: what a person looks for first, then the hash."""
        return f"{self.target}-{self.precision}-{self.digest()[:8]}"


@dataclass(frozen=True)
class TensorRecord:
    """One input or output of an artifact as its file declares it; ``color_order`` where the file says so.

    An axis of any size is -1 in ``shape``. With a ``scale`` the integers q of the tensor stand for
    ``scale · (q - zero_point)``.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    layout: Layout
    color_order: ColorOrder | None = None
    scale: float | None = None
    zero_point: int = 0


@dataclass(frozen=True)
class FileHash:
    """One file of an artifact, its path relative to the artifact's folder."""

    path: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Artifact:
    """An exported file on disk, and what it was made from.

    ``content_hash`` is canonical: it depends on the operations and weights, not on names of the machine or on
    the order in which a serialiser wrote them. ``recipe_table`` is the whole recipe, so that the file can be run and
    judged where the recipe is not at hand. ``certificate`` is that of folding and merging and ``measurements`` are
    records of ``bench``, files beside the artifact.
    """

    recipe: str
    plan: ExportPlan
    path: Path
    content_hash: str
    size_bytes: int
    files: tuple[FileHash, ...]
    recipe_sha256: str
    checkpoint_sha256: str
    inputs: tuple[TensorRecord, ...]
    outputs: tuple[TensorRecord, ...]
    toolchain: dict[str, str]
    passes: tuple[PassReport, ...]
    comparisons: tuple[Comparison, ...]
    recipe_table: dict[str, Any] = field(repr=False)
    lint: tuple[str, ...] = ()
    runtime: str = ""
    certificate: FileHash | None = None
    measurements: tuple[FileHash, ...] = ()
    quantization: Quantization | None = None

    @property
    def passed(self) -> bool:
        """Whether every comparison passed."""
        return all(comparison.passed for comparison in self.comparisons)


@dataclass(frozen=True)
class SkippedTarget:
    """A target that was asked for and not made, with the reason: in CI this is a failure."""

    target: Target
    reason: str


@dataclass(frozen=True)
class Injection:
    """One damage done by the self-test. ``outcome`` is caught, missed or neutral (with the ``reason``)."""

    module: str
    dropped: str
    outcome: str
    relative_l2: float
    reason: str = ""


@dataclass(frozen=True)
class DeadChannels:
    """How many channels of one BatchNorm have a gamma so small that they carry nothing but a constant."""

    module: str
    dead: int
    channels: int


@dataclass(frozen=True)
class StageCount:
    """Folds and merges below one top-level module of the network."""

    stage: str
    folded: int
    merged: int
    left: int


@dataclass(frozen=True)
class Verification:
    """The verdict of ``verify-reparam`` on one network."""

    recipe: str
    checkpoint_sha256: str
    stages: tuple[StageCount, ...]
    passes: tuple[PassReport, ...]
    comparisons: tuple[tuple[str, Comparison], ...]
    findings: tuple[str, ...]
    notes: tuple[str, ...] = ()
    injections: tuple[Injection, ...] = ()
    dead_channels: tuple[DeadChannels, ...] = ()
    expected_folds: int | None = None
    expected_merges: int | None = None

    @property
    def passed(self) -> bool:
        """Whether nothing was found and every comparison passed."""
        return not self.findings and all(comparison.passed for _, comparison in self.comparisons)


def to_json(record: Any) -> Any:
    """Return ``record`` as plain JSON values; NaN and infinities become strings, so that the text is strict JSON."""
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        return {f.name: to_json(getattr(record, f.name)) for f in dataclasses.fields(record)}
    if isinstance(record, Enum):
        return record.value
    if isinstance(record, Path):
        return record.as_posix()
    if isinstance(record, float) and not math.isfinite(record):
        return str(record)
    if isinstance(record, dict):
        return {str(key): to_json(value) for key, value in record.items()}
    if isinstance(record, (list, tuple)):
        return [to_json(value) for value in record]
    return record


def versioned(kind: str, body: Any) -> dict[str, Any]:
    """Return ``body`` as JSON values under its kind and the version of the record format."""
    return {"deploykit": RECORD_VERSION, "kind": kind, "body": to_json(body)}

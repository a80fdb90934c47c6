"""Frozen records of ``deploykit verify``: what was bound to what, how far it is off, what its preprocessing is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from deploykit.attribution.records import Attribution
from deploykit.records import Comparison
from deploykit.verify.lint import Lint
from deploykit.vocab import ColorOrder, InputKind, Layout, Precision, Target


class OutputForm(StrEnum):
    """What a file returns, beside what the network returns.

    ``network``: the same. ``softmax``: probabilities that sum to 1 over the classes. ``foreground``: one channel,
    the probability of the last of two classes. ``sigmoid``: that of a single score. ``mask``: one channel, the number
    of the best class.
    """

    NETWORK = "network"
    SOFTMAX = "softmax"
    FOREGROUND = "foreground"
    SIGMOID = "sigmoid"
    MASK = "mask"


class ProbeVerdict(StrEnum):
    """What the probe images say about the preprocessing inside a file."""

    AGREES = "agrees"
    EXPLAINED = "explained"
    UNEXPLAINED = "unexplained"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class InputBinding:
    """One input of the recipe and the one of the file that takes it.

    ``shape`` is what was given to the file, in ``layout`` order; ``kind`` is ``image`` where the file takes pixels
    from 0 to 255. ``resized``: the file takes another size than the network and resizes by itself.
    """

    input: str
    file_input: str
    shape: tuple[int, ...]
    dtype: str
    layout: Layout
    kind: InputKind
    color_order: ColorOrder | None
    resized: bool = False


@dataclass(frozen=True)
class WorstValue:
    """Where the largest error is: ``sample``, channel, y and x (``place``, as many as the output has axes), and both
    values."""

    sample: str
    place: tuple[int, ...]
    found: float
    expected: float


@dataclass(frozen=True)
class OutputVerification:
    """One output of the file against the reference's.

    ``miou`` is the mean IoU over the classes of the file's masks with the reference's, on pictures; ``truth_miou``
    and ``reference_truth_miou`` are those of both with the true masks of the synthetic portraits. Without classes,
    or where shapes differ, they are None.
    """

    output: str
    file_output: str
    layout: Layout
    form: OutputForm
    comparison: Comparison
    cosine: float | None
    miou: float | None
    truth_miou: float | None
    reference_truth_miou: float | None
    worst: WorstValue | None
    lints: tuple[Lint, ...]

    @property
    def passed(self) -> bool:
        """Whether every bound was kept and no lint forbids the values."""
        return self.comparison.passed and not any(lint.fails for lint in self.lints)


@dataclass(frozen=True)
class RuntimeVerification:
    """The file as one runtime computes it."""

    runtime: str
    outputs: tuple[OutputVerification, ...]


@dataclass(frozen=True)
class RuntimePair:
    """One output as two runtimes of the same file compute it."""

    runtime: str
    other: str
    comparison: Comparison


@dataclass(frozen=True)
class Hypothesis:
    """A preprocessing that the file might have, and how far the network with it is from the file: relative L2."""

    name: str
    relative_l2: float


@dataclass(frozen=True)
class Probe:
    """The preprocessing inside the file, tested with probe images.

    ``relative_l2`` is the difference with the recipe's preprocessing, ``limit`` the bound below which a
    preprocessing explains the outputs. ``explanations`` are those that do, the best first: more than one where the
    images do not tell them apart. ``tried`` counts the preprocessings that were tested.
    """

    verdict: ProbeVerdict
    detail: str
    images: tuple[str, ...] = ()
    relative_l2: float | None = None
    limit: float | None = None
    explanations: tuple[Hypothesis, ...] = ()
    tried: int = 0


@dataclass(frozen=True)
class ReferenceRecord:
    """What the file was compared with: a ``checkpoint`` in float64, or another ``file`` on its own runtime.

    ``sha256`` is that of the checkpoint.
    """

    kind: str
    path: Path
    computed_by: str
    sha256: str | None = None


@dataclass(frozen=True)
class ArtifactVerification:
    """The verdict on one exported file.

    ``precision`` chose the tolerances, and ``precision_source`` says who said so. ``manifest`` is None for a file
    without one; ``changed`` names the files that are not those of their manifest. ``findings`` hold every reason why
    it did not pass; ``notes`` what a person should know anyway. ``layers`` is there where it was asked for.
    ``content_hash`` is that of the manifest.
    """

    recipe: str
    path: Path
    target: Target
    precision: Precision
    precision_source: str
    manifest: Path | None
    changed: tuple[str, ...]
    reference: ReferenceRecord
    samples: tuple[str, ...]
    inputs: tuple[InputBinding, ...]
    runtimes: tuple[RuntimeVerification, ...]
    between: tuple[RuntimePair, ...]
    probe: Probe
    findings: tuple[str, ...]
    notes: tuple[str, ...] = ()
    layers: Attribution | None = None
    content_hash: str | None = None

    @property
    def passed(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

"""Frozen records of an inspection: a network in its forms, or an exported file as it is on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deploykit.graph.conventions import CONVENTIONS
from deploykit.graph.cost import GraphCost
from deploykit.inspection.ranges import LayerRanges
from deploykit.records import PassReport
from deploykit.targets.contents import FileContents
from deploykit.vocab import Convention


@dataclass(frozen=True)
class FormCost:
    """What one form of a network costs.

    ``merged``: BatchNorm folded and branches merged (the deploy form), else as it is trained (the training form).
    ``outputs`` are those that are computed.
    """

    merged: bool
    outputs: tuple[str, ...]
    cost: GraphCost

    @property
    def name(self) -> str:
        """The form in words."""
        return "deploy form" if self.merged else "training form"


@dataclass(frozen=True)
class NetworkCost:
    """What a network costs, with the shape of each input.

    ``forms`` holds the training form and the deploy form, each with every output and, where that is less,
    with the deployed outputs alone. The last one is what is exported. ``parameters`` counts the whole network, with
    what no output needs.
    """

    recipe: str
    input_shapes: dict[str, tuple[int, ...]]
    parameters: int
    forms: tuple[FormCost, ...]

    @property
    def exported(self) -> FormCost:
        """The form that is exported: folded and merged, with the deployed outputs alone."""
        return self.forms[-1]

    def form(self, *, merged: bool, every_output: bool) -> FormCost:
        """Return one of the forms. Where every output is deployed, ``every_output`` makes no difference."""
        found = [form for form in self.forms if form.merged is merged]
        return found[0] if every_output else found[-1]

    def macs(self, convention: Convention, *, merged: bool, every_output: bool) -> int:
        """Return the count of one form in ``convention``; 1 multiply-accumulate counts 1."""
        return self.form(merged=merged, every_output=every_output).cost.macs[convention]


@dataclass(frozen=True)
class InputContract:
    """What the network takes under one name: for an image, resized pixels as ``(pixel - mean) * scale``.

    ``mean``, ``scale``, ``color_order`` and ``resize`` are None for other tensors; ``feedback`` says what an input of
    a network for video takes from the frame before.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    layout: str
    kind: str
    color_order: str | None
    value_range: tuple[float, float]
    mean: tuple[float, ...] | None
    scale: tuple[float, ...] | None
    resize: str | None
    feedback: str | None


@dataclass(frozen=True)
class OutputContract:
    """What the network returns under one name, and whether the exported file has it."""

    name: str
    shape: tuple[int, ...] | None
    dtype: str
    layout: str
    classes: tuple[str, ...]
    deployed: bool
    meaning: str


@dataclass(frozen=True)
class NetworkInspection:
    """A network: its costs, what was folded and merged and what not, and its contract.

    ``checkpoint`` is None where fresh weights stood in for trained ones: costs depend on shapes only. ``ranges`` are
    those of channels, where they were asked for.
    """

    recipe: str
    description: str
    convention: Convention
    checkpoint: Path | None
    checkpoint_sha256: str | None
    cost: NetworkCost
    passes: tuple[PassReport, ...]
    inputs: tuple[InputContract, ...]
    outputs: tuple[OutputContract, ...]
    notes: tuple[str, ...] = ()
    ranges: tuple[LayerRanges, ...] = ()

    @property
    def detailed(self) -> FormCost:
        """The form whose layers are worth a look: what is exported, or trained where the convention needs that."""
        return self.cost.form(merged=not CONVENTIONS[self.convention].training_only, every_output=False)


@dataclass(frozen=True)
class FileInspection:
    """An exported file: what is in it, and its cost in ``convention``.

    ``macs`` is None where the convention makes no sense of a file, for the reason ``why_no_macs``; a lower bound
    where ``unknown`` names operations. ``recipe``, ``verified`` (the comparisons of the export passed, and the file is
    still that one) and ``changed`` (files that are not what was exported) come from the manifest beside the file:
    without one they are None or empty.
    """

    contents: FileContents
    convention: Convention
    macs: int | None
    why_no_macs: str
    not_counted: dict[str, int]
    unknown: dict[str, int]
    recipe: str | None = None
    verified: bool | None = None
    changed: tuple[str, ...] = ()

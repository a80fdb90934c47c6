"""One cell of the support matrix exported for real, and whether it came out as the matrix states."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deploykit.errors import DeploykitError
from deploykit.lowering import ExportOptions
from deploykit.pipeline import Exporter, prepare_export
from deploykit.preflight.constructs import CONSTRUCTS, construct_network
from deploykit.preflight.matrix import Cell
from deploykit.targets.table import part
from deploykit.verify.samples import draw_samples
from deploykit.vocab import Precision, Target


@dataclass(frozen=True)
class Outcome:
    """What an export of one cell gave: the error of its file, or who ``refused`` it and why."""

    construct: str
    target: Target
    precision: Precision
    passes: tuple[str, ...] = ()
    relative_l2: float | None = None
    refused: str = ""

    def departs(self, cell: Cell) -> str:
        """Return in which way the outcome is not what ``cell`` states, or an empty text."""
        if bool(self.refused) != bool(cell.refused):
            return f"stated {cell.stated}, but {self.refused or 'exported'}"
        if not cell.refused and self.passes != cell.passes:
            return f"stated {cell.passes}, but rewritten by {self.passes}"
        return ""


def prepared(construct: str) -> Exporter:
    """Return the network around ``construct``, ready to be exported to any target."""
    network = construct_network(CONSTRUCTS[construct])
    return prepare_export(network, draw_samples(network.recipe))


def export_cell(exporter: Exporter, construct: str, target: Target, precision: Precision, folder: Path) -> Outcome:
    """Return what the export of one cell into ``folder`` gave.

    A refusal is an outcome; what is no ``DeploykitError`` is a bug, and is raised.
    """
    try:
        artifact = exporter.write(target, ExportOptions(precision=precision), folder)
    except DeploykitError as error:
        return Outcome(construct, target, precision, refused=f"{type(error).__name__}: {error.found or error.message}")
    baseline = {"fold_batch_norm"} if construct not in ("conv + BatchNorm", "parallel branches") else set()
    own = {one.__name__ for one in part(target, "lowering").PASSES} | {"fold_batch_norm", "merge_branches"}
    fired = tuple(report.name for report in artifact.passes if report.fired and report.name in own - baseline)
    return Outcome(construct, target, precision, fired, artifact.comparisons[0].relative_l2)

"""One row a module: what was measured at the values that it makes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from deploykit.attribution.file import Fit
from deploykit.attribution.judge import Judgement
from deploykit.attribution.lowered import Lowered, Node
from deploykit.attribution.parts import Parts
from deploykit.attribution.records import ModuleError, Part, Verdict


@dataclass(frozen=True)
class Measured:
    """Everything about one matched value: ``segment`` are the nodes that are not matched and lead to it, and itself."""

    node: Node
    value: str
    segment: tuple[Node, ...]
    judgement: Judgement
    parts: Parts
    cause: Part | None

    @property
    def owner(self) -> Node:
        """The node that the error of the value counts for: the last one with weights, else the value's own."""
        return next((node for node in reversed(self.segment) if node.has_weights), self.node)


def segments(lowered: Lowered, fits: Mapping[str, Fit]) -> dict[str, tuple[Node, ...]]:
    """Return matched node → itself and the unmatched nodes since the matched ones before it, in order."""
    by_name = {node.name: node for node in lowered.nodes}
    order = {node.name: place for place, node in enumerate(lowered.nodes)}
    found = {}
    for name in fits:
        members = {name}
        pending = list(by_name[name].reads)
        while pending:
            read = pending.pop()
            if read in by_name and read not in fits and read not in members and by_name[read].varies:
                members.add(read)
                pending.extend(by_name[read].reads)
        found[name] = tuple(by_name[member] for member in sorted(members, key=order.__getitem__))
    return found


def rows(lowered: Lowered, measured: Sequence[Measured], fits: Mapping[str, Fit]) -> tuple[ModuleError, ...]:
    """Return the rows, the accused first, each group by its worst ratio."""
    grouped: dict[str, list[Measured]] = {}
    for one in measured:
        grouped.setdefault(one.owner.modules[0], []).append(one)
    nodes: dict[str, list[Node]] = {}
    for node in lowered.nodes:
        if node.varies and node.shape is not None:
            nodes.setdefault(node.modules[0], []).append(node)
    found = [_row(module, own, grouped.get(module, []), fits) for module, own in nodes.items()]
    return tuple(sorted(found, key=lambda row: (row.verdict is not Verdict.ACCUSED, -(row.ratio or 0.0))))


def _row(module: str, nodes: Sequence[Node], measured: Sequence[Measured], fits: Mapping[str, Fit]) -> ModuleError:
    worst = max(measured, key=lambda one: one.judgement.ratio, default=None)
    accused = [one for one in measured if not one.judgement.clean]
    # Beside an accused module stand those that may be meant as well, no more.
    shown = accused or measured
    joined = {path for node in nodes for path in node.modules}
    joined |= {path for one in shown for member in one.segment for path in member.modules}
    return ModuleError(
        module=module,
        joined=tuple(sorted(joined - {module})),
        operations=tuple(dict.fromkeys(node.operation for node in nodes)),
        matched=sum(node.name in fits for node in nodes),
        unmatched=sum(node.name not in fits for node in nodes),
        value=worst.value if worst else "",
        local_error=_most(one.judgement.error for one in measured),
        explained=worst.judgement.explained if worst else None,
        ratio=worst.judgement.ratio if worst else None,
        cumulative_error=_most(one.parts.cumulative for one in measured),
        precision_error=_most(one.parts.precision for one in measured),
        converter_error=_most(one.parts.converter for one in measured),
        kernel_error=_most(one.parts.kernel for one in measured),
        verdict=Verdict.ACCUSED if accused else Verdict.CLEAN,
        cause=max(accused, key=lambda one: one.judgement.ratio).cause if accused else None,
    )


def _most(errors: Iterable[float | None]) -> float | None:
    return max((error for error in errors if error is not None), default=None)

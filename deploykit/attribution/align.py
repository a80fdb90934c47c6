"""Which value of a file stands for which value of the lowered graph.

The graph is walked in order, each operation computed from the file's own values before it. A value of the file that
equals the result up to rounding stands for it; where several do, the one at the same place of the file's own graph.
Where the file goes wrong, nothing after the fault equals anything; then the first such value is looked for among the
file's values of its shape, and one is taken only where the walk, continued from it, meets the file again: the file
computes from it what the network computes from that value. What is not found so is left unmatched.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from torch import Tensor

from deploykit.attribution.file import File, Fit
from deploykit.attribution.judge import judge
from deploykit.attribution.lowered import Lowered, Node, Values
from deploykit.attribution.walk import Computed, Walk

# A walk that met the file nowhere for so many operations looks back for a fault.
_PATIENCE = 40
# Operations that are continued from a candidate, and unmatched places that are tried, before it counts as not found.
_CONTINUED, _TRIED = 12, 48
# Two candidates within this factor of each other are ambiguous.
_CLEARLY = 2.0
_NEAR = 0.3
# How far a value may be from the network's that has the right place in the file and did not disturb what follows.
_SMALL = 0.05
# Operations that make different values equal, which a converter may write as several or begin in the one before.
_CUTTING = ("relu", "clamp", "clamp_min", "clamp_max", "hardtanh", "minimum", "maximum")


@dataclass(frozen=True)
class Alignment:
    """``fits`` by node of the lowered graph, and the nodes for which several values of the file fit."""

    fits: dict[str, Fit]
    ambiguous: tuple[str, ...] = field(default=())


def align(lowered: Lowered, file: File, given: Values) -> Alignment:
    """Return the matches of the values of ``file``, which was run on the sample whose graph inputs are ``given``."""
    return _Aligner(lowered, file, given).run()


class _Aligner:
    def __init__(self, lowered: Lowered, file: File, given: Values) -> None:
        self._nodes = lowered.nodes
        self._index = {node.name: place for place, node in enumerate(lowered.nodes)}
        self._lowered, self._file = lowered, file
        self._walk = Walk(lowered, file, given)
        self._readers: dict[str, list[str]] = defaultdict(list)
        for node in lowered.nodes:
            for read in node.reads:
                self._readers[read].append(node.name)
        # Value of the file → the value that stands for the same one of the graph: itself, or what it copies.
        self._claimed: dict[str, str] = {}
        self._computed: dict[str, Computed] = {}
        self._ambiguous: set[str] = set()
        self._hopeless: set[str] = set()

    def run(self) -> Alignment:
        place, met = 0, 0
        while place < len(self._nodes):
            if self._visit(self._nodes[place]):
                met = place
            place += 1
            if place - met > _PATIENCE or place == len(self._nodes):
                again = self._look_back(place)
                met = place
                if again is not None:
                    place = met = again
        self._take_outputs()
        self._take_small_faults()
        return Alignment(dict(self._walk.fits), tuple(sorted(self._ambiguous - set(self._walk.fits))))

    def _visit(self, node: Node) -> bool:
        """Compute ``node`` and match it where a value of the file equals it; return whether it has a match."""
        if node.name in self._walk.fits:
            return True
        computed = self._walk.compute(node)
        self._walk.keep(node, computed)
        if not _can_match(node):
            return False
        self._computed[node.name] = computed
        equal = self._equal(node, computed)
        if not equal:
            return False
        best = equal[0]
        self._claim(node.name, best, copies=[fit.value for fit in equal[1:]])
        return True

    def _equal(self, node: Node, computed: Computed) -> list[Fit]:
        """Return the values of the file that rounding alone keeps from what ``node`` computes, the best first."""
        exact: Tensor = computed.exact
        flat = exact.numel() > 1 and bool((exact == exact.flatten()[0]).all())
        found = []
        for fit in self._near(node, exact, _NEAR):
            judgement = self._walk.judged(node.name, fit, computed)
            at_place = self._same_place(node.name, fit.value)
            if judgement.clean and (at_place or not flat):
                taken = self._claimed.get(fit.value) == fit.value
                found.append((taken, not at_place, self._file.values[fit.value].position, fit))
        found.sort(key=lambda item: item[:3])
        return [item[3] for item in found]

    def _near(self, node: Node, exact: Tensor, limit: float) -> list[Fit]:
        assert node.shape is not None
        typical = float(exact.square().mean().sqrt()) if exact.numel() else 0.0
        return [fit for fit in self._file.candidates(node.shape) if self._file.distance(fit, exact, typical) <= limit]

    def _claim(self, name: str, fit: Fit, copies: list[str] | None = None) -> None:
        self._walk.match(name, fit)
        self._claimed[fit.value] = fit.value
        for copy in copies or []:
            if copy not in self._claimed and self._file.before(copy, self._claimed) == {fit.value}:
                self._claimed[copy] = fit.value
        self._computed.pop(name, None)

    def _same_place(self, name: str, value: str) -> bool:
        """Whether the nearest matched values before the node and before the file's value are the same."""
        file = {self._claimed.get(read, read) for read in self._file.before(value, self._claimed)}
        return file == self._before(name)

    def _before(self, name: str) -> set[str]:
        names = {graph: own for own, graph in self._file.inputs.items()}
        found: set[str] = set()
        pending, seen = list(self._nodes[self._index[name]].reads), set()
        while pending:
            read = pending.pop()
            if read in seen:
                continue
            seen.add(read)
            if read in self._walk.fits:
                found.add(self._claimed.get(self._walk.fits[read].value, self._walk.fits[read].value))
            elif read in self._index:
                pending.extend(self._nodes[self._index[read]].reads)
            else:
                found.add(names.get(read, read))
        return found

    def _lost(self, until: int) -> list[Node]:
        """Return the nodes before ``until`` that have no match and none after them."""
        meets: dict[str, bool] = {}
        for node in reversed(self._nodes[:until]):
            meets[node.name] = any(r in self._walk.fits or meets.get(r, False) for r in self._readers[node.name])
        return [
            node
            for node in self._nodes[:until]
            if _can_match(node) and node.name not in self._walk.fits and not meets[node.name]
        ]

    def _look_back(self, until: int) -> int | None:
        """Match the first value that the file has wrong, if there is one; return where to walk on, else None."""
        if until == len(self._nodes):
            # What could not be continued for want of other values may be continued now.
            self._hopeless.clear()
        for node in [node for node in self._lost(until) if node.name not in self._hopeless][:_TRIED]:
            found = self._candidate(node)
            if found is None:
                self._hopeless.add(node.name)
                continue
            meant = self._nearest_node(node, found)
            self._claim(meant.name, found)
            for later in self._nodes[self._index[meant.name] + 1 : until]:
                if later.name not in self._walk.fits:
                    self._walk.forget(later.name)
                    self._hopeless.discard(later.name)
            return self._index[meant.name] + 1
        return None

    def _candidate(self, node: Node) -> Fit | None:
        """Return the value of the file that stands for ``node`` although it is wrong, where exactly one does."""
        assert node.shape is not None
        free = [fit for fit in self._file.candidates(node.shape) if fit.value not in self._claimed]
        for at_place in (True, False):
            found = [
                fit
                for fit in free
                if self._same_place(node.name, fit.value) is at_place and self._meets_again(node, fit)
            ]
            if found:
                chosen = self._choice(node, found)
                if chosen is None:
                    self._ambiguous.add(node.name)
                return chosen
        return None

    def _choice(self, node: Node, found: list[Fit]) -> Fit | None:
        """Return the value that the others are computed from, the one that bears the node's name, or the nearest.

        All of ``found`` lead on to the same later values, so that a name decides between equals and proves nothing.
        """
        for fit in found:
            others = [other for other in found if other is not fit]
            if all(other.value != fit.value and self._file.depends(other.value, fit.value) for other in others):
                return fit
        named = [fit for fit in found if node.name in self._file.values[fit.value].origins]
        if len(named) == 1:
            return named[0]
        found = sorted(found, key=lambda fit: self._error(node, fit))
        errors = [self._error(node, fit) for fit in found[:2]]
        return found[0] if errors[1] >= _CLEARLY * errors[0] else None

    def _error(self, node: Node, fit: Fit) -> float:
        return self._walk.judged(node.name, fit, self._computed[node.name]).error

    def _meets_again(self, node: Node, fit: Fit) -> bool:
        """Whether the walk, continued from ``fit`` as the value of ``node``, computes a later value of the file."""
        replaced = {node.name: self._walk.given_by(node.name, fit)}
        continued = 0
        for later in self._nodes[self._index[node.name] + 1 :]:
            if replaced.keys().isdisjoint(later.reads):
                continue
            if not all(read in replaced or self._walk.known(read) for read in later.reads):
                continue
            computed = self._walk.compute(later, replaced)
            replaced[later.name] = self._walk.carried(later, computed)
            continued += 1
            if _can_match(later) and self._met(later, computed, fit.value):
                return True
            if continued == _CONTINUED:
                break
        return False

    def _met(self, node: Node, computed: Computed, origin: str) -> bool:
        for fit in self._near(node, computed.exact, _NEAR):
            later = fit.value != origin and fit.value not in self._claimed and self._file.depends(fit.value, origin)
            if later and self._walk.judged(node.name, fit, computed).clean:
                return True
        return False

    def _nearest_node(self, node: Node, fit: Fit) -> Node:
        """Return the node that ``fit`` stands for: a later one of a chain where it is much nearer to that.

        A file that applies the activation within the convolution has no value for the convolution alone.
        """
        readers = [self._nodes[self._index[name]] for name in self._readers[node.name]]
        if len(readers) != 1 or readers[0].shape != node.shape or readers[0].name not in self._computed:
            return node
        if self._error(readers[0], fit) * _CLEARLY < self._error(node, fit):
            return self._nearest_node(readers[0], fit)
        return node

    def _take_outputs(self) -> None:
        """Match what is left of the outputs by their names, which are part of the file's contract."""
        for output, name in self._lowered.outputs.items():
            node = self._nodes[self._index[name]] if name in self._index else None
            value = self._file.outputs.get(output)
            if node is None or value is None or name in self._walk.fits or not _can_match(node):
                continue
            assert node.shape is not None
            fits = [fit for fit in self._file.candidates(node.shape) if fit.value == value]
            fits.sort(key=lambda fit: self._error(node, fit))
            if fits:
                self._claim(name, fits[0])

    def _take_small_faults(self) -> None:
        """Match values whose error was too small to disturb what follows, by their place in the file."""
        for node in self._nodes:
            if not _can_match(node) or node.name in self._walk.fits or node.name not in self._computed:
                continue
            fits = [
                fit
                for fit in self._near(node, self._computed[node.name].exact, _SMALL)
                if fit.value not in self._claimed and self._same_place(node.name, fit.value)
            ]
            if len({fit.value for fit in fits}) == 1 and self._agrees(node, fits[0]) and not self._cut(node, fits[0]):
                self._claim(node.name, fits[0])

    def _cut(self, node: Node, fit: Fit) -> bool:
        """Whether everything that reads ``node`` cuts off what is wrong with ``fit``: it may be the first part of that.

        A clamp whose lower bound the file applies within the addition before leaves a value that is no sum.
        """
        replaced = {node.name: self._walk.given_by(node.name, fit)}
        readers = [self._nodes[self._index[name]] for name in self._readers[node.name]]
        for reader in readers:
            if reader.operation not in _CUTTING:
                return False
            own, half = self._walk.compute(reader), self._file.is_half(fit.value)
            if not judge(self._walk.compute(reader, replaced).exact, own.exact, own.rounded, half=half).clean:
                return False
        return bool(readers)

    def _agrees(self, node: Node, fit: Fit) -> bool:
        """Whether the matched values after ``node`` are what the network computes from ``fit`` in its place.

        A part of what the file computes for ``node``, a product without its sum, may be near and at the same place.
        """
        replaced = {node.name: self._walk.given_by(node.name, fit)}
        met = False
        for later in self._nodes[self._index[node.name] + 1 :]:
            if replaced.keys().isdisjoint(later.reads):
                continue
            computed = self._walk.compute(later, replaced)
            own = self._walk.fits.get(later.name)
            if own is None:
                replaced[later.name] = self._walk.carried(later, computed)
            elif self._file.depends(own.value, fit.value) and self._walk.judged(later.name, own, computed).clean:
                met = True
            else:
                return False
        return met


def _can_match(node: Node) -> bool:
    return node.varies and node.shape is not None

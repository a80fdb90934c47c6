"""Which tensors of a checkpoint are the network: the choice is literal, and what was passed over is said."""

from __future__ import annotations

from dataclasses import dataclass, field

from deploykit.checkpoint.inert import StandIn
from deploykit.checkpoint.refusal import damaged, listed, shown
from deploykit.checkpoint.tensors import Leaf, RefusedTensor, TensorRecord
from deploykit.errors import CheckpointError

# Names under which training code keeps the network, first choice first.
USUAL_KEYS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "network",
    "module",
    "params",
    "params_ema",
    "weights",
    "net_state_dict",
    "ema",
    "ema_state_dict",
    "state_dict_ema",
    "model_ema",
)
# Names whose tensors are never a network; they are taken only when --checkpoint-key says so.
# fmt: off
TRAINING_KEYS = frozenset({
    "optimizer", "optimizers", "optimizer_states", "optimizer_state_dict", "optim", "optim_state_dict",
    "lr_scheduler", "lr_schedulers", "scheduler", "scheduler_state_dict", "scaler", "grad_scaler",
    "amp", "callbacks", "loops", "rng_state", "criterion", "loss",
})
# fmt: on
PREFIXES = ("module.", "_orig_mod.")

# A hostile file can nest without end, or reach one module through exponentially many paths.
_MAX_DEPTH = 64
_MAX_LEAVES = 200_000
_LISTED = 20

Leaves = dict[str, Leaf]


@dataclass(slots=True)
class Selection:
    """The chosen tensors under their names, the dotted key where they were found, and what to tell the user."""

    key: str
    leaves: Leaves
    notes: list[str] = field(default_factory=list)


def select(root: object, key: str | None) -> Selection:
    """Return the network's tensors in ``root``: those under ``key``, or the usual place when it is None.

    A key that leads to no mapping is also tried as a prefix of tensor names ("state_dict.model_ema"). Raises
    CheckpointError when there are no tensors, no such key, or several places that could be meant.
    """
    inventory = _Inventory()
    if not inventory.count(root):
        raise CheckpointError(
            "the checkpoint holds no tensors",
            found=f"a {_kind(root)}",
            expected="a state dict, or a mapping or pickled network that holds one",
            next_step="save the trained network with torch.save(network.state_dict(), path)",
        )
    if not key:
        return _choose(inventory, root, "")
    chosen = _resolve(inventory, root, key, "")
    if chosen is None:
        raise CheckpointError(
            f"the checkpoint has no key {shown(key)!r}",
            found=_places_text(inventory, root),
            expected="a dotted key of a mapping that holds tensors",
            next_step="choose one with --checkpoint-key",
        )
    return chosen


def strip_prefixes(selection: Selection) -> Selection:
    """Return the selection without the prefixes of DataParallel and torch.compile, where every key has them.

    The counter ``n_averaged`` that torch's AveragedModel keeps beside ``module.`` is left out with it.
    """
    leaves, notes = selection.leaves, list(selection.notes)
    averaged = {name: leaf for name, leaf in leaves.items() if name != "n_averaged"}
    if len(averaged) < len(leaves) and averaged and all(name.startswith("module.") for name in averaged):
        leaves = averaged
        notes.append("left out 'n_averaged', the counter of an averaged model")
    while prefix := next((p for p in PREFIXES if all(n.startswith(p) and n != p for n in leaves)), None):
        leaves = {name.removeprefix(prefix): leaf for name, leaf in leaves.items()}
        notes.append(f"stripped prefix {prefix!r} from {len(leaves)} keys")
    return Selection(selection.key, leaves, notes)


class _Inventory:
    """Finds and counts tensors; every container is visited once, however often it is reached."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._leaves: dict[int, Leaves] = {}

    def leaves(self, node: object) -> Leaves:
        """Return the tensors of a pickled module by parameter name, or those directly in a mapping."""
        if id(node) not in self._leaves:
            self._leaves[id(node)] = (
                _module_leaves(node)
                if _is_module(node)
                else {name: value for name, value in _entries(node).items() if isinstance(value, Leaf)}
            )
        return self._leaves[id(node)]

    def count(self, node: object, depth: int = 0) -> int:
        """Return the number of tensors in ``node`` and, for a mapping, below it."""
        if id(node) not in self._counts:
            self._counts[id(node)] = 0
            below = () if _is_module(node) or depth > _MAX_DEPTH else _entries(node).values()
            self._counts[id(node)] = len(self.leaves(node)) + sum(self.count(child, depth + 1) for child in below)
        return self._counts[id(node)]

    def nested(self, node: object) -> dict[str, object]:
        """Return the mappings and modules directly in ``node`` that hold tensors."""
        if _is_module(node):
            return {}
        return {name: child for name, child in _entries(node).items() if self.count(child)}


def _choose(inventory: _Inventory, node: object, path: str, depth: int = 0) -> Selection:
    """Return the tensors of ``node``, or of the one place below it where a network is usually kept."""
    nested = {name: child for name, child in inventory.nested(node).items() if name not in TRAINING_KEYS}
    direct = inventory.leaves(node)
    if direct and not nested:
        return _selection(inventory, node, path)
    usual = [name for name in USUAL_KEYS if name in nested]
    if depth > _MAX_DEPTH or not (usual or (len(nested) == 1 and not direct)):
        raise CheckpointError(
            "the checkpoint holds tensors in several places, none of a usual name"
            if nested
            else "the checkpoint holds tensors of the training state only",
            found=_places_text(inventory, node, path),
            expected=f"tensors at the root, or under one of {', '.join(USUAL_KEYS[:6])}, ...",
            next_step="choose one with --checkpoint-key",
        )
    name = usual[0] if usual else next(iter(nested))
    chosen = _choose(inventory, nested[name], _joined(path, name), depth + 1)
    others = [_joined(path, other) for other in nested if other != name]
    if others:
        taken = shown(chosen.key)
        chosen.notes.append(f"took {taken!r}; tensors also under {listed(others)}: --checkpoint-key chooses")
    elif not usual:
        chosen.notes.append(f"took {shown(chosen.key)!r}, the only place that holds tensors")
    return chosen


def _resolve(inventory: _Inventory, node: object, key: str, path: str) -> Selection | None:
    """Return what ``key`` names below ``node``: names may themselves contain dots, the longest is tried first."""
    children = inventory.nested(node)
    for end in [len(key), *(index for index in range(len(key) - 1, 0, -1) if key[index] == ".")]:
        name, rest = key[:end], key[end + 1 :]
        if name in children:
            below = _joined(path, name)
            child = children[name]
            found = _resolve(inventory, child, rest, below) if rest else _choose(inventory, child, below)
            if found is not None:
                return found
    prefix = f"{key}."
    inside = {
        name.removeprefix(prefix): leaf for name, leaf in inventory.leaves(node).items() if name.startswith(prefix)
    }
    if not inside:
        return None
    return Selection(
        _joined(path, key), inside, [f"took the {len(inside)} tensors whose names begin with {shown(prefix)!r}"]
    )


def _selection(inventory: _Inventory, node: object, path: str) -> Selection:
    leaves = inventory.leaves(node)
    if _is_module(node):
        return Selection(path, dict(leaves), [f"recovered {len(leaves)} tensors from a pickled network"])
    dropped = [name for name in _entries(node) if name not in leaves]
    notes = [f"left out {len(dropped)} entries that are no tensors: {listed(dropped, 5)}"] if dropped else []
    return Selection(path, dict(leaves), notes)


def _places_text(inventory: _Inventory, root: object, path: str = "") -> str:
    """Return the keys that lead to tensors, each with its number of tensors."""
    places: list[str] = []
    pending, seen = [(path, root)], set[int]()
    while pending and len(places) <= _LISTED:
        key, node = pending.pop(0)
        if id(node) in seen:
            continue
        seen.add(id(node))
        if leaves := inventory.leaves(node):
            places.append(f"{shown(key) or '(root)'} ({len(leaves)} tensors)")
        pending.extend((_joined(key, name), child) for name, child in inventory.nested(node).items())
    return ", ".join(places[:_LISTED]) + (", ..." if len(places) > _LISTED else "")


def _entries(node: object) -> dict[str, object]:
    """Return the entries with a text key of a dictionary, or of a stand-in for some class of dictionary."""
    entries = node.entries if isinstance(node, StandIn) else node
    if not isinstance(entries, dict):
        return {}
    return {name: value for name, value in entries.items() if isinstance(name, str)}


def _attributes(node: object) -> dict[str, object]:
    """Return the attributes that the pickle gives an object: its state, without that of __slots__."""
    state = node.state if isinstance(node, StandIn) else None
    return _entries(state[0] if isinstance(state, tuple) and state else state)


def _is_scripted(node: object) -> bool:
    return isinstance(node, StandIn) and node.origin.module.partition(".")[0] == "__torch__"


def _is_module(node: object) -> bool:
    attributes = _attributes(node)
    return _is_scripted(node) or ("_modules" in attributes and "_parameters" in attributes)


def _module_leaves(root: object) -> Leaves:
    """Return parameters and persistent buffers of a pickled module under the names that state_dict would give."""
    found: Leaves = {}
    visited = 0
    pending: list[tuple[str, object, int]] = [("", root, 0)]
    while pending:
        prefix, node, depth = pending.pop()
        visited += 1
        if depth > _MAX_DEPTH or visited + len(found) > _MAX_LEAVES:
            raise damaged("a pickled network nested without end")
        own, children = _members(node)
        found.update({prefix + name: value for name, value in own.items()})
        # Reversed, because the last one is taken next: the order is that of state_dict.
        pending.extend((f"{prefix}{name}.", child, depth + 1) for name, child in reversed(children.items()))
    return found


def _members(node: object) -> tuple[Leaves, dict[str, object]]:
    """Return a module's own tensors and its submodules, by name."""
    attributes = _attributes(node)
    if _is_scripted(node):
        children = {name: child for name, child in attributes.items() if _is_scripted(child)}
        return {name: value for name, value in attributes.items() if isinstance(value, Leaf)}, children
    passing = attributes.get("_non_persistent_buffers_set")
    skipped = passing if isinstance(passing, list) else []
    own: Leaves = {}
    for kind in ("_parameters", "_buffers"):
        for name, value in _entries(attributes.get(kind)).items():
            if isinstance(value, Leaf) and not (kind == "_buffers" and name in skipped):
                own[name] = value
    modules = _entries(attributes.get("_modules"))
    return own, {name: child for name, child in modules.items() if isinstance(child, StandIn)}


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _kind(node: object) -> str:
    if isinstance(node, StandIn):
        return f"pickled {shown(str(node.origin))}"
    if isinstance(node, RefusedTensor | TensorRecord):
        return "single tensor, without a name"
    return f"{type(node).__name__} of {len(node)} entries" if isinstance(node, dict | list) else type(node).__name__

"""Strict loading: every tensor of the checkpoint has its place in the network, and every place its tensor."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from deploykit.checkpoint.load import Checkpoint
from deploykit.checkpoint.refusal import listed, shown
from deploykit.errors import CheckpointError, NotFiniteError

# BatchNorm's step counter: PyTorch before 0.4.1 did not save it, and inference does not read it.
COUNTER = "num_batches_tracked"


def fit_state_dict(
    tensors: Mapping[str, torch.Tensor],
    expected: Mapping[str, tuple[int, ...]],
    *,
    key_map: Mapping[str, str],
    where: str | None = None,
) -> dict[str, torch.Tensor]:
    """Return ``tensors`` under the names and in the order of ``expected`` (name to shape), none left over.

    An entry of ``key_map`` turns a whole name, or the leading part of names up to a dot, into another: "net" or
    "net." to "backbone." renames net.conv.weight to backbone.conv.weight, "model." to "" strips, "" to "net."
    adds. The longest entry that fits is applied, once. Where the checkpoint has no BatchNorm step counter at all,
    the counters are left out. Raises CheckpointError with the first ten missing names, unexpected names and wrong
    shapes, and their counts.
    """
    renamed: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        new = _renamed(name, key_map)
        if new in renamed:
            raise CheckpointError(
                f"the key map gives two tensors the name {shown(new)!r}",
                where=where,
                next_step="correct the key map of the recipe",
            )
        renamed[new] = tensor
    counted = any(_is_counter(name) for name in renamed)
    missing = [name for name in expected if name not in renamed and (counted or not _is_counter(name))]
    unexpected = [name for name in renamed if name not in expected]
    misshapen = [
        f"{name} {tuple(renamed[name].shape)} instead of {tuple(shape)}"
        for name, shape in expected.items()
        if name in renamed and tuple(renamed[name].shape) != tuple(shape)
    ]
    faults = {"missing": missing, "unexpected": unexpected, "wrong shape": misshapen}
    if any(faults.values()):
        raise CheckpointError(
            "the checkpoint does not fit the network",
            where=where,
            found="; ".join(f"{len(names)} {fault}: {listed(names)}" for fault, names in faults.items() if names),
            expected=f"exactly the {len(expected)} tensors of the network",
            next_step="check that recipe and checkpoint belong together, or set the recipe's key map "
            "or --checkpoint-key",
        )
    return {name: renamed[name] for name in expected if name in renamed}


def load_into(
    module: nn.Module, checkpoint: Checkpoint, key_map: Mapping[str, str]
) -> tuple[nn.Module, tuple[str, ...]]:
    """Return a copy of ``module`` in eval mode with the checkpoint's tensors, and notes; ``module`` is untouched.

    Values are converted to the type of their place. Raises CheckpointError when the names or shapes differ (see
    ``fit_state_dict``), when a type cannot take the values, or when a value is NaN or infinite, also after
    conversion; the tensor is named.
    """
    loaded = copy.deepcopy(module).eval()
    places = {name: value for name, value in loaded.state_dict().items() if isinstance(value, torch.Tensor)}
    where = str(checkpoint.path)
    shapes = {name: tuple(place.shape) for name, place in places.items()}
    tensors, stripped = _without_holder(checkpoint.tensors, shapes, key_map)
    fitted = fit_state_dict(tensors, shapes, key_map=key_map, where=where)
    converted = {name: _converted(name, tensor, places[name], where) for name, tensor in fitted.items()}
    # Not strict: the only names that can be missing here are the step counters.
    loaded.load_state_dict(converted, strict=False)
    return loaded, (*checkpoint.notes, *stripped, *_notes(tensors, places, fitted, key_map))


def _without_holder(
    tensors: Mapping[str, torch.Tensor], shapes: Mapping[str, tuple[int, ...]], key_map: Mapping[str, str]
) -> tuple[Mapping[str, torch.Tensor], tuple[str, ...]]:
    """Strip the attribute that held the network in a Lightning module, only where the names then fit one to one."""
    holders = {name.partition(".")[0] for name in tensors}
    if key_map or len(holders) != 1 or set(tensors) == set(shapes):
        return tensors, ()
    (holder,) = holders
    bare = {name.partition(".")[2]: tensor for name, tensor in tensors.items()}
    if set(bare) != set(shapes):
        return tensors, ()
    return bare, (f"stripped prefix '{holder}.' from {len(bare)} keys: they then are exactly the network's",)


def _notes(
    tensors: Mapping[str, torch.Tensor],
    places: Mapping[str, torch.Tensor],
    fitted: Mapping[str, torch.Tensor],
    key_map: Mapping[str, str],
) -> Sequence[str]:
    notes = []
    if absent := len(places) - len(fitted):
        notes.append(f"the checkpoint has no {COUNTER} ({absent} in the network): inference does not read it")
    used = {_rule(name, key_map) for name in tensors}
    # An entry that the checkpoint has no need of, since its names are the new ones already, is no news.
    in_place = {_rule(name, dict.fromkeys(key_map.values(), "")) for name in tensors}
    if idle := [old for old, new in key_map.items() if old not in used and new not in in_place]:
        notes.append(f"entries of the key map that fit no tensor: {listed([repr(old) for old in idle])}")
    return notes


def _is_counter(name: str) -> bool:
    return name.rpartition(".")[2] == COUNTER


def _rule(name: str, key_map: Mapping[str, str]) -> str | None:
    """Return the longest entry of the key map that is ``name`` or its leading part up to a dot."""
    fitting = [old for old in key_map if name == old or not old or name.startswith(old.rstrip(".") + ".")]
    return max(fitting, key=len, default=None)


def _renamed(name: str, key_map: Mapping[str, str]) -> str:
    old = _rule(name, key_map)
    if old is None:
        return name
    new, rest = key_map[old], name[len(old) :]
    # "net" to "backbone." and "net." to "backbone" mean the same: one dot between the parts.
    return new.rstrip(".") + "." + rest.lstrip(".") if new and rest else new + rest.lstrip(".")


def _converted(name: str, tensor: torch.Tensor, place: torch.Tensor, where: str) -> torch.Tensor:
    """Return ``tensor`` in the type of ``place``, all values finite."""
    if not torch.can_cast(tensor.dtype, place.dtype):
        raise CheckpointError(
            f"the tensor {shown(name)!r} has a type that the network cannot take",
            where=where,
            found=str(tensor.dtype),
            expected=str(place.dtype),
            next_step="check that recipe and checkpoint belong together",
        )
    converted = tensor.to(place.dtype)
    if not bool(torch.isfinite(converted).all()):
        what = "NaN" if bool(torch.isnan(converted).any()) else f"infinity as {place.dtype}"
        raise NotFiniteError(
            f"the tensor {shown(name)!r} has values that are not finite",
            where=where,
            found=what,
            expected="finite numbers",
            next_step="take a checkpoint from before the training diverged",
        )
    return converted

"""Read a chain of reshapes, transposes, slices and concatenations as one permutation of the channels of a value."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, fx

from deploykit.graph.channels import channels_of, concatenated
from deploykit.graph.graph import aten, is_call, shape_of

_MOVES = (
    aten.view.default, aten._unsafe_view.default, aten.reshape.default, aten.transpose.int, aten.permute.default,
    aten.clone.default, aten.contiguous.default, aten.flatten.using_ints, aten.unflatten.int, aten.squeeze.dim,
    aten.unsqueeze.default, aten.alias.default,
)  # fmt: skip
_SLICES = (aten.slice.Tensor, aten.split.Tensor, aten.split_with_sizes.default, aten.chunk.default)
_LARGEST = 1 << 24

_Selection: TypeAlias = tuple[fx.Node, Tensor, frozenset[fx.Node]]


@dataclass(frozen=True)
class Permutation:
    """``end`` is ``source`` with its channels in another order: channel c of ``end`` is channel ``order[c]``.

    ``moves`` are the nodes on the way, ``end`` among them.
    """

    source: fx.Node
    end: fx.Node
    order: Tensor
    moves: frozenset[fx.Node]

    @property
    def is_read_elsewhere(self) -> bool:
        """Whether the source, or a value on the way to the end, has a reader that is not part of this."""
        inner = (self.source, *(move for move in self.moves if move is not self.end))
        return any(reader not in self.moves for node in inner for reader in node.users)


def read_permutation(end: fx.Node) -> Permutation | None:
    """Return ``end`` as a permutation of the channels of one value; None where it is none, or leaves all in place."""
    if channels_of(end) is None:
        return None
    joined = concatenated(end)
    found = _selection(end) if joined is None else _joined(joined)
    if found is None:
        return None
    source, order, moves = found
    count = channels_of(source)
    if count is None or shape_of(source) != shape_of(end) or order.sort().values.tolist() != list(range(count)):
        return None
    return None if order.tolist() == list(range(count)) else Permutation(source, end, order, moves | {end})


def _joined(parts: list[fx.Node]) -> _Selection | None:
    selections = [_selection(part) for part in parts]
    sources = {found[0] for found in selections if found is not None}
    if len(sources) != 1 or None in selections:
        return None
    found = [one for one in selections if one is not None]
    return sources.pop(), torch.cat([one[1] for one in found]), frozenset().union(*(one[2] for one in found))


def _selection(end: fx.Node) -> _Selection | None:
    """Return the value, which of its channels ``end`` is made of, and the moves; None where it is no selection."""
    chain: list[fx.Node] = []
    node: object = end
    while isinstance(node, fx.Node) and (is_call(node, *_MOVES, *_SLICES) or node.target is operator.getitem):
        if chain and len(node.users) > 1 and not is_call(node, *_SLICES):
            break
        chain.append(node)
        node = node.args[0]
    while chain and not (isinstance(chain[-1].args[0], fx.Node) and channels_of(chain[-1].args[0]) is not None):
        chain.pop()
    if not chain:
        return None
    source = chain[-1].args[0]
    shape = shape_of(source)
    assert isinstance(source, fx.Node)
    if shape is None or torch.Size(shape).numel() > _LARGEST or not _takes_constants(chain):
        return None
    order = _order(shape, list(reversed(chain)))
    return None if order is None else (source, order, frozenset(chain))


def _takes_constants(chain: list[fx.Node]) -> bool:
    return all(len(node.all_input_nodes) == 1 for node in chain)


def _order(shape: tuple[int, ...], chain: list[fx.Node]) -> Tensor | None:
    """Return which channels the moves in ``chain`` select from a value of ``shape``, each whole and in place."""
    channels, height, width = shape[1:]
    places = torch.arange(torch.Size(shape).numel()).reshape(shape)
    value: object = places
    for node in chain:
        if node.target is operator.getitem:
            assert isinstance(value, (list, tuple))
            index = node.args[1]
            assert isinstance(index, int)
            value = value[index]
        else:
            assert callable(node.target)
            value = node.target(value, *node.args[1:], **node.kwargs)
    if not isinstance(value, Tensor) or value.dim() != len(shape) or value.shape[2:] != (height, width):
        return None
    order = value[0, :, 0, 0] // (height * width)
    if bool((order >= channels).any()):
        return None
    return order if torch.equal(value, places[:, order]) else None

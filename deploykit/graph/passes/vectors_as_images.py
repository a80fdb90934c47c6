"""Layers between a pooled image without its two axes of size 1 and the same image with them back keep the axes.

Algebra: (N, C) and (N, C, 1, 1) hold the same numbers in the same order. On one pixel a linear layer is a 1x1
convolution; a PReLU, a BatchNorm and every pointwise operation act on channels or values alone, and a mean over the
image may keep its axes. What is left out are the reshapes. This is done where it saves some: a value that is read as
a vector elsewhere, such as an output of the network, has to be reshaped for that.
Some converters have no PReLU for vectors, or compute the layer before it once for each of its two branches.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import fx

from deploykit.graph.channels import BINARY, POINTWISE, RANK
from deploykit.graph.graph import (
    VALUE_MAP,
    Graph,
    Recorder,
    argument,
    aten,
    constant,
    erase_unread,
    is_call,
    module_path,
    shape_of,
    sources,
    stamp,
    stand_for,
    with_rewrite,
)
from deploykit.graph.layers import layer_weights, replace_constant, replace_weights
from deploykit.graph.value_map import reshaped

NAME = "vectors_as_images"

AS_VECTOR = "it is read as a vector elsewhere: reshapes left out {out}, put in {put}"

_RESHAPES = (
    aten.view.default, aten._unsafe_view.default, aten.reshape.default, aten.flatten.using_ints,
    aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims, aten.unsqueeze.default, aten.unflatten.int,
)  # fmt: skip
_REDUCTIONS = (aten.mean.dim, aten.amax.default, aten.amin.default, aten.sum.dim_IntList)


def vectors_as_images(graph: Graph) -> Graph:
    """Return ``graph`` with the vectors between two reshapes written as images of one pixel."""
    return with_rewrite(graph, NAME, rewrite)


def rewrite(module: fx.GraphModule, recorder: Recorder) -> None:
    """Rewrite ``module`` in place; note each group of vectors that became images, and why others did not."""
    for group in _groups(module):
        reshapes = [node for node in group if is_call(node, *_RESHAPES)]
        vectors = {node for node in group if _is_vector(node)}
        read = [node for node in vectors if any(reader not in group for reader in node.users)]
        if len(read) >= len(reshapes):
            # A reshape that only an output reads, or a mean, is as short as it can be.
            if any(not is_call(node, *_RESHAPES, *_REDUCTIONS) for node in group):
                recorder.skipped(module_path(group[0]), AS_VECTOR.format(out=len(reshapes), put=len(read)))
            continue
        recorder.fired(
            tuple(dict.fromkeys(module_path(node) for node in group if node not in reshapes)) or sources(group[0]),
            f"{len(reshapes)} reshapes left out" + (f", {len(read)} put in" if read else ""),
        )
        _write(module, group, read)


def _groups(module: fx.GraphModule) -> Iterator[list[fx.Node]]:
    """Yield the calls on vectors that hang together, with the reshapes around them, each group in order."""
    found: dict[fx.Node, list[fx.Node]] = {}
    places = {node: place for place, node in enumerate(module.graph.nodes)}
    for node in places:
        if node.op != "call_function" or not _keeps_one_pixel(module, node, found):
            continue
        joined = {node, *(member for one in node.all_input_nodes for member in found.get(one, ()))}
        group = sorted(joined, key=places.__getitem__)
        found |= dict.fromkeys(group, group)
    yield from {id(group): group for group in found.values()}.values()


def _is_vector(node: object) -> bool:
    """Whether ``node`` has the shape (N, C) or (N, C, 1): one value for each channel."""
    shape = shape_of(node)
    return shape is not None and len(shape) in (2, 3) and shape[2:] in ((), (1,))


def _image_of(node: fx.Node) -> tuple[int, ...] | None:
    """Return the shape (N, C, 1, 1) of ``node``, which has that or is a vector; else None."""
    shape = shape_of(node)
    if shape is None or not (_is_vector(node) or (len(shape) == RANK and shape[2:] == (1, 1))):
        return None
    return (*shape[:2], 1, 1)


def _keeps_one_pixel(module: fx.GraphModule, node: fx.Node, found: dict[fx.Node, list[fx.Node]]) -> bool:
    """Whether ``node`` makes a vector, or an image of one, from the images and vectors of ``found`` alone."""
    source = node.args[0] if node.args else None
    image = _image_of(node)
    if not isinstance(source, fx.Node) or image is None:
        return False
    if is_call(node, *_RESHAPES):
        enters = shape_of(source) == image and _is_vector(node)
        return enters or (source in found and _image_of(source) == image)
    if not _is_vector(node):
        return False
    if is_call(node, *_REDUCTIONS):
        return _is_over_the_image(node)
    if source not in found and not is_call(node, *BINARY):
        return False
    if is_call(node, aten.linear.default):
        return len(node.meta["val"].shape) == 2 and layer_weights(module, node) is not None
    if is_call(node, aten.prelu.default):
        return constant(module, node.args[1]) is not None
    if is_call(node, aten.batch_norm.default):
        return all(constant(module, one) is not None for one in node.args[1:5] if one is not None)
    if is_call(node, *BINARY):
        return _is_binary(module, node, found)
    return is_call(node, *POINTWISE) and node.all_input_nodes == [source]


def _is_over_the_image(node: fx.Node) -> bool:
    """Whether the reduction ``node`` takes height and width of an image away, as in ``x.mean((2, 3))``."""
    source = shape_of(node.args[0])
    axes = argument(node, 1, "dim")
    return (
        source is not None
        and len(source) == RANK
        and isinstance(axes, (list, tuple))
        and {int(axis) % RANK for axis in axes} == {2, 3}
        and not argument(node, 2, "keepdim", False)
        and not node.kwargs.get("dtype")
    )


def _is_binary(module: fx.GraphModule, node: fx.Node, found: dict[fx.Node, list[fx.Node]]) -> bool:
    """Whether the operands of ``node`` are vectors of ``found`` of its rank, numbers, and weights that broadcast."""
    rank = len(node.meta["val"].shape)
    for operand in node.args[:2]:
        if not isinstance(operand, fx.Node):
            continue
        weight = constant(module, operand)
        if weight is None:
            if operand not in found or len(operand.meta["val"].shape) != rank:
                return False
        elif weight.dim() > rank:
            return False
    return any(operand in found for operand in node.args[:2])


def _write(module: fx.GraphModule, group: list[fx.Node], read: list[fx.Node]) -> None:
    """Let the calls of ``group`` keep their axes; those of ``read`` are reshaped for their other readers."""
    images: dict[fx.Node, fx.Node] = {}
    for node in group:
        source: Any = node.args[0]
        images[node] = images.get(source, source) if is_call(node, *_RESHAPES) else node
    vectors = {node: node.meta["val"] for node in read}
    for node in group:
        if images[node] is node:
            _keep_axes(module, node, images)
    inside = set(group)
    for node, value in vectors.items():
        with module.graph.inserting_after(images[node]):
            vector = module.graph.call_function(aten.view.default, (images[node], list(value.shape)))
        stand_for(stamp(vector, node), node, sources(node))
        vector.meta |= {"val": value, VALUE_MAP: None}
        outside = {user for user in node.users if user not in inside} - {vector}
        node.replace_all_uses_with(vector, delete_user_cb=outside.__contains__)
    for node in reversed(group):
        if images[node] is not node:
            node.replace_all_uses_with(images[node])
            erase_unread(module, node)


def _keep_axes(module: fx.GraphModule, node: fx.Node, images: dict[fx.Node, fx.Node]) -> None:
    """Turn ``node``, a call on vectors, into the same on images."""
    shape = tuple(node.meta["val"].shape)
    node.args = tuple(images.get(one, one) if isinstance(one, fx.Node) else one for one in node.args)
    if is_call(node, aten.linear.default):
        read = layer_weights(module, node)
        assert read is not None
        weight, bias = read
        node.target = aten.conv2d.default
        replace_weights(module, node, weight[:, :, None, None], bias)
    elif is_call(node, *_REDUCTIONS):
        node.args, node.kwargs = (node.args[0], [2, 3], True), {}
    elif is_call(node, *BINARY):
        for position, operand in enumerate(node.args[:2]):
            weight_or_none = constant(module, operand)
            if weight_or_none is not None and weight_or_none.dim() > 0:
                aligned = weight_or_none.reshape((1,) * (len(shape) - weight_or_none.dim()) + weight_or_none.shape)
                replace_constant(module, node, position, aligned.reshape(*aligned.shape, *(1,) * (RANK - len(shape))))
    stand_for(node, node, sources(node))
    node.meta["val"] = node.meta["val"].new_empty((*shape[:2], 1, 1))
    reshaped(node, shape)

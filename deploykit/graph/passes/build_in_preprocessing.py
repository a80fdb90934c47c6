"""The recipe's preprocessing becomes part of the graph: ``(pixel - mean)``, then the scale.

The subtraction stays at the input: the first convolution pads its input with zeros, and zero is the mean
itself, so folding the mean into its bias would be right inside and wrong at the border. The scale commutes with
zero padding: ``conv(scale * x, W) = conv(x, W * scale)``, per input channel. It is folded into the first
convolutions unless a weight would become subnormal in half precision, where it would lose most of its bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx

from deploykit.graph.graph import Graph, Recorder, add_weight, aten, constant, is_call

NAME = "build_in_preprocessing"
SMALLEST_NORMAL_HALF = 2.0**-14
LARGEST_HALF = 65504.0


@dataclass(frozen=True)
class Normalisation:
    """``(pixel - mean) * scale`` per channel; ``pixel_dtype`` is what the file takes, float32 or uint8."""

    mean: tuple[float, ...]
    scale: tuple[float, ...]
    pixel_dtype: str


def build_in_preprocessing(graph: Graph, normalisations: Mapping[str, Normalisation]) -> Graph:
    """Return ``graph`` (float64 weights) with raw pixels as the inputs named in ``normalisations``."""
    graph = graph.copy()
    record = Recorder(NAME)
    placeholders = [node for node in graph.module.graph.nodes if node.op == "placeholder"]
    specs = []
    for node, spec in zip(placeholders, graph.inputs, strict=True):
        rule = normalisations.get(spec.name)
        if rule is None:
            specs.append(spec)
            continue
        _insert(graph.module, node, rule, spec.name, record)
        specs.append(replace(spec, dtype=rule.pixel_dtype))
    return record.finish(replace(graph, inputs=tuple(specs)))


def _insert(module: fx.GraphModule, node: fx.Node, rule: Normalisation, name: str, record: Recorder) -> None:
    readers = sorted(node.users)
    if not readers:
        record.skipped(name, f"no output depends on {name}: it takes pixels that nobody reads")
        return
    channels = node.meta["val"].shape[1]
    mean = torch.tensor(rule.mean, dtype=torch.float64).expand(channels).reshape(1, channels, 1, 1)
    scale = torch.tensor(rule.scale, dtype=torch.float64).expand(channels).reshape(1, channels, 1, 1)
    anchor = readers[0]
    pixel: fx.Node = node
    with module.graph.inserting_before(anchor):
        if rule.pixel_dtype != "float32":
            pixel = module.graph.call_function(aten._to_copy.default, (node,), {"dtype": torch.float64})
            pixel.meta["val"] = node.meta["val"]
    centred = _call(
        module, aten.sub.Tensor, pixel, add_weight(module, f"preprocessing.{name}.mean", mean, anchor), node
    )
    reason = _cannot_fold(module, node, readers, scale)
    for reader in readers:
        reader.replace_input_with(node, centred)
    if reason is None:
        for reader in readers:
            weight = constant(module, reader.args[1])
            assert weight is not None
            path = str(reader.args[1].target) if isinstance(reader.args[1], fx.Node) else name
            reader.update_arg(1, add_weight(module, path, weight * scale.reshape(1, channels, 1, 1), reader))
        record.fired([name], "the mean is subtracted in the file, the scale is folded into the first convolution")
        return
    scaled = _call(
        module, aten.mul.Tensor, centred, add_weight(module, f"preprocessing.{name}.scale", scale, anchor), node
    )
    for reader in readers:
        reader.replace_input_with(centred, scaled)
    record.fired([name], "the mean is subtracted and the scale is multiplied in the file")
    record.skipped(name, f"the scale of {name} stays a multiplication: {reason}")


def _call(module: fx.GraphModule, operation: object, left: fx.Node, right: fx.Node, like: fx.Node) -> fx.Node:
    with module.graph.inserting_after(right):
        node = module.graph.call_function(operation, (left, right))  # type: ignore[arg-type]
    node.meta["val"] = like.meta["val"]
    node.meta["deploykit_module"] = "preprocessing"
    return node


def _cannot_fold(module: fx.GraphModule, node: fx.Node, readers: list[Any], scale: Tensor) -> str | None:
    lost = total = 0
    for reader in readers:
        weight = constant(module, reader.args[1]) if is_call(reader, aten.conv2d.default) else None
        if weight is None or reader.args[0] is not node or weight.shape[1] != scale.shape[1]:
            return f"{reader.name} reads the input and is not a dense convolution"
        folded = (weight * scale).abs()
        lost += int(((folded > 0) & (folded < SMALLEST_NORMAL_HALF) & (weight.abs() >= SMALLEST_NORMAL_HALF)).sum())
        total += weight.numel()
    if lost:
        return f"folded, {lost} of the first layer's {total} weights would be subnormal in half precision"
    return None

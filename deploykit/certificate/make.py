"""Make the certificate of a network: each folded or merged block with its reasons, errors and bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from deploykit.certificate import box as boxes
from deploykit.certificate.blocks import Replaced, find_blocks, inside, without_no_ops
from deploykit.certificate.expression import Expression, Reading, UnreadableError
from deploykit.certificate.layer import LINEAR, TRANSPOSED
from deploykit.certificate.measure import measure
from deploykit.certificate.preconditions import algebra_of, preconditions, readers_outside
from deploykit.certificate.recompute import NotOneLayerError, recompute, tensor_hash
from deploykit.certificate.records import Block, Box, Certificate, FoldedLayer, Precondition
from deploykit.certificate.rounding import FLOAT16, FLOAT32, bound
from deploykit.graph.graph import Graph, constant
from deploykit.network import LoadedNetwork
from deploykit.verify.reparam import deploy_graph, training_graph
from deploykit.verify.samples import Sample

Array = NDArray[np.float64]
FOLDED, MERGED = "fold", "merge"


@dataclass(frozen=True)
class Subject:
    """A network whose blocks were found, and the boxes that samples show for them, by the block's name.

    ``plain`` is the training form without no-ops, ``deploy`` the simplified graph, both float64; ``state`` holds the
    floating tensors of the state dict.
    """

    network: LoadedNetwork
    plain: Graph
    deploy: Graph
    blocks: tuple[Replaced, ...]
    boxes: dict[str, Box]
    samples: dict[str, str]
    state: dict[str, Array]


def certify(
    network: LoadedNetwork,
    samples: Sequence[Sample],
    *,
    training: Graph | None = None,
    deploy: Graph | None = None,
) -> Certificate:
    """Return the certificate of ``network``; its boxes are what ``samples`` show, widened.

    A block that does not hold is in the record, with ``passed`` False. Raises as ``examine`` does.
    """
    subject = examine(network, samples, training=training, deploy=deploy)
    recipe = network.recipe
    return Certificate(
        recipe=recipe.name,
        recipe_sha256=recipe.sha256,
        checkpoint_sha256=network.checkpoint_sha256,
        input_shapes=tuple(item.shape for item in recipe.file.inputs),
        samples=subject.samples,
        widening=boxes.WIDENING,
        blocks=tuple(certify_block(subject, block, subject.boxes[block.name]) for block in subject.blocks),
    )


def examine(
    network: LoadedNetwork,
    samples: Sequence[Sample],
    *,
    training: Graph | None = None,
    deploy: Graph | None = None,
) -> Subject:
    """Return the blocks of ``network`` and their boxes; the graphs are captured and simplified where not given.

    Raises VerificationError for a network in training mode, or whose folded layers cannot be traced back.
    """
    recipe = network.recipe
    captured = training or training_graph(network)
    plain = without_no_ops(captured, [output.name for output in recipe.deployed()])
    simplified = deploy or deploy_graph(captured, recipe)
    found = find_blocks(plain, simplified)
    axes = {block.source: -1 if block.layer.kind == LINEAR else 1 for block in found}
    ranges = boxes.observe(plain, axes, recipe, samples)
    state = {
        name: value.detach().double().numpy()
        for name, value in network.module.state_dict().items()
        if isinstance(value, torch.Tensor) and value.is_floating_point()
    }
    widened = {block.name: boxes.widened(*ranges[block.source.name]) for block in found}
    return Subject(network, plain, simplified, found, widened, boxes.sample_hashes(samples), state)


def certify_block(subject: Subject, block: Replaced, box: Box) -> Block:
    """Return the certificate of one block for inputs inside ``box``, which has one range per input channel."""
    plain, deploy, state = subject.plain, subject.deploy, subject.state
    by_name = {node.name: node for node in plain.module.graph.nodes}
    ends = [by_name[term.value] for term in block.terms]
    nodes = set[fx.Node]().union(*(inside(end, block.source) for end in ends))
    weight = _tensor(deploy, block.layer.weight)
    given = None if block.layer.bias is None else _tensor(deploy, block.layer.bias)
    expressed, problem = _expressed(plain, block, ends, state)
    recomputed = None
    if not problem:
        try:
            recomputed = recompute(expressed, block.layer, weight.shape)
        except NotOneLayerError as error:
            problem = str(error)
    outputs = weight.shape[1] * block.layer.groups if block.layer.kind == TRANSPOSED else len(weight)
    folded = (weight, np.zeros(outputs) if given is None else given)
    own = recomputed or folded
    checks = [Precondition("one layer", not problem, problem or "every operation is linear and known")]
    if not problem:
        checks += preconditions(expressed, block.layer, readers_outside(nodes, ends))
    magnitude = boxes.magnitudes(box)
    single = bound(block.layer, own, folded, magnitude, FLOAT32)
    weights = {"folded": folded, "recomputed": own}
    return Block(
        name=block.name,
        kind=MERGED if len(block.terms) > 1 or any(one.kind == "sum" for one in expressed.operations) else FOLDED,
        modules=block.modules,
        source=block.source.name,
        algebra=algebra_of(expressed),
        operations=expressed.operations,
        terms=block.terms,
        preconditions=tuple(checks),
        layer=FoldedLayer(
            kind=block.layer.kind,
            stride=block.layer.stride,
            padding=block.layer.padding,
            dilation=block.layer.dilation,
            groups=block.layer.groups,
            weight=tensor_hash(own[0]),
            bias=None if given is None else tensor_hash(own[1]),
            recomputed=recomputed is not None,
        ),
        box=box,
        float32=single,
        float16=bound(block.layer, own, folded, magnitude, FLOAT16),
        measured=measure(plain.module, block, weights, box, single.bounds),
    )


def _expressed(
    plain: Graph, block: Replaced, ends: Sequence[fx.Node], state: Mapping[str, Array]
) -> tuple[Expression, str]:
    """Return what ``block`` computes in the training form, and what in it could not be read, if anything."""
    reading, problem = Reading(plain.module, block.source), ""
    try:
        for end in ends:
            reading.read(end)
    except UnreadableError as error:
        problem = str(error)
    tensors = {**state, **reading.computed}
    return Expression(block.source.name, tuple(reading.operations.values()), block.terms, tensors), problem


def _tensor(graph: Graph, node: object) -> Array:
    value = constant(graph.module, node)
    assert value is not None
    found: Array = value.detach().double().numpy()
    return found

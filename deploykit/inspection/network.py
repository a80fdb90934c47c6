"""Inspection of a network: its cost in each form, what its passes did, and its contract."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from deploykit.errors import UsageError
from deploykit.graph.capture import capture
from deploykit.graph.cost import graph_cost
from deploykit.graph.graph import Graph, shape_of
from deploykit.graph.passes.drop_unused_outputs import drop_unused_outputs
from deploykit.graph.simplify import simplify
from deploykit.inspection.ranges import layer_ranges
from deploykit.inspection.records import FormCost, InputContract, NetworkCost, NetworkInspection, OutputContract
from deploykit.network import LoadedNetwork, build_network, load_network
from deploykit.recipe import Feedback, Input, Recipe, load_recipe
from deploykit.vocab import Convention

Size = tuple[int, int]


def network_cost(
    recipe: Recipe | str | Path, size: Size | None = None, *, outputs: Sequence[str] | None = None
) -> NetworkCost:
    """Return what the recipe's network costs at ``size`` (height, width) in every convention, with fresh weights.

    No checkpoint is read: costs depend on shapes alone. ``size`` None takes the recipe's. ``outputs`` stand in for the
    deployed ones, for a paper that counts one training branch and not another. Raises RecipeError, UsageError for a
    size that the recipe cannot have, CaptureError for one that the network rejects.
    """
    chosen = _sized(recipe if isinstance(recipe, Recipe) else load_recipe(recipe), size)
    cost, _, _ = _examine(chosen, build_network(chosen), outputs)
    return cost


def inspect_network(
    subject: Recipe | LoadedNetwork,
    *,
    convention: Convention = Convention.MACS,
    size: Size | None = None,
    checkpoint: Path | None = None,
    checkpoint_key: str | None = None,
    ranges: bool = False,
    calibration: Path | None = None,
) -> NetworkInspection:
    """Return what a network is made of and costs.

    A recipe's weights are those of ``checkpoint``, else those that it names, else fresh ones, which changes no cost.
    With ``ranges`` those of its channels are measured, on images of the folder ``calibration`` or synthetic portraits.
    Raises as ``network_cost``, CheckpointError for weights that do not fit, UsageError for ranges of fresh ones.
    """
    loaded = subject if isinstance(subject, LoadedNetwork) else None
    chosen = _sized(subject.recipe if isinstance(subject, LoadedNetwork) else subject, size)
    if loaded is None and (checkpoint is not None or chosen.checkpoint_path() is not None):
        loaded = load_network(chosen, checkpoint=checkpoint, key=checkpoint_key)
    if ranges and loaded is None:
        raise UsageError(
            "Fresh weights have no ranges worth a look.",
            where="--ranges",
            found=f"{chosen.name} without a checkpoint",
            next_step="name one with --checkpoint",
        )
    cost, training, deploy = _examine(chosen, loaded.module if loaded else build_network(chosen))
    return NetworkInspection(
        recipe=chosen.name,
        description=chosen.file.description,
        convention=convention,
        checkpoint=loaded.checkpoint_path if loaded else None,
        checkpoint_sha256=loaded.checkpoint_sha256 if loaded else None,
        cost=cost,
        passes=deploy.reports,
        inputs=tuple(_input(item) for item in chosen.file.inputs),
        outputs=_outputs(chosen, training),
        notes=loaded.notes if loaded else (),
        ranges=layer_ranges(deploy, chosen, calibration) if ranges else (),
    )


def _sized(recipe: Recipe, size: Size | None) -> Recipe:
    return recipe if size is None else recipe.with_size(*size)


def _examine(
    recipe: Recipe, network: nn.Module, outputs: Sequence[str] | None = None
) -> tuple[NetworkCost, Graph, Graph]:
    """Return the cost of ``network`` with its captured graph and its deploy graph."""
    training = capture(
        network,
        tuple(torch.zeros(item.shape) for item in recipe.file.inputs),
        tuple(item.spec() for item in recipe.file.inputs),
        tuple(output.name for output in recipe.file.outputs),
    )
    kept = tuple(output.name for output in recipe.deployed()) if outputs is None else tuple(outputs)
    deploy = simplify(training, keep_outputs=kept)
    graphs = [(False, training), (True, deploy)]
    if set(kept) != set(training.outputs):
        graphs = [
            (False, training),
            (False, drop_unused_outputs(training, kept)),
            (True, simplify(training, keep_outputs=None)),
            (True, deploy),
        ]
    cost = NetworkCost(
        recipe=recipe.name,
        input_shapes={item.name: item.shape for item in recipe.file.inputs},
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        forms=tuple(FormCost(merged, graph.outputs, graph_cost(graph)) for merged, graph in graphs),
    )
    return cost, training, deploy


def _input(item: Input) -> InputContract:
    image = item.kind == "image"
    fed = item.feedback
    return InputContract(
        name=item.name,
        shape=item.shape,
        dtype=item.spec().dtype,
        layout=item.spec().layout,
        kind=item.kind,
        color_order=item.color_order if image else None,
        value_range=item.value_range,
        mean=item.mean if image else None,
        scale=item.scale if image else None,
        resize=f"{item.resize.rule}, {item.resize.filter}" if image else None,
        feedback=None if fed is None else _feedback(fed),
    )


def _feedback(fed: Feedback) -> str:
    return f"softmax probability of {fed.class_name} in {fed.output} of the frame before; {fed.first:g} at first"


def _outputs(recipe: Recipe, training: Graph) -> tuple[OutputContract, ...]:
    results = training.module.graph.output_node().args[0]
    assert isinstance(results, tuple)
    return tuple(
        OutputContract(
            name=output.name,
            shape=shape_of(result),
            dtype="float32",
            layout="nchw",
            classes=output.classes,
            deployed=output.deploy,
            meaning=output.meaning,
        )
        for output, result in zip(recipe.file.outputs, results, strict=True)
    )

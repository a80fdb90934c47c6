"""What a file says about itself: the texts of its metadata."""

from __future__ import annotations

from deploykit.network import LoadedNetwork
from deploykit.recipe import Output
from deploykit.records import ExportPlan
from deploykit.version import __version__
from deploykit.vocab import InputKind, OutputKind


def describe(network: LoadedNetwork, plan: ExportPlan) -> dict[str, str]:
    """Return what the file says about itself, as texts without a time, a path or a machine."""
    recipe = network.recipe
    found = {
        "description": recipe.file.description,
        "license": recipe.file.license,
        "source": recipe.file.source,
        "version": __version__,
        "recipe": recipe.name,
        "recipe_sha256": recipe.sha256,
        "checkpoint_sha256": network.checkpoint_sha256,
        "precision": plan.precision.value,
        "layout": plan.layout.value,
        "output_kind": plan.output_kind.value,
        "plan": plan.digest(),
    }
    for item in recipe.file.inputs:
        text = f"{item.kind}, shape {list(item.shape)}"
        if item.kind == "image":
            text += f", {item.color_order}, resized by {item.resize.rule} ({item.resize.filter})"
            if plan.input_kind is InputKind.IMAGE:
                text += ", 8-bit pixels; the preprocessing is in the file"
            else:
                text += f", (pixel - {list(item.mean)}) * {list(item.scale)}"
        if item.feedback is not None:
            fed = item.feedback
            how = "softmax of" if plan.output_kind is OutputKind.LOGITS else "as in"
            text += f", probability of {fed.class_name} ({how} {fed.output}) in the frame before; first {fed.first}"
            found[f"feedback.{item.name}"] = fed.model_dump_json()
        found[f"input.{item.name}"] = text
    for output in recipe.deployed():
        found[f"output.{output.name}"] = _meaning(output, plan.output_kind)
    return found


def _meaning(output: Output, kind: OutputKind) -> str:
    """Return what the values of ``output`` say in a file of ``kind``."""
    names = output.classes
    classes = f"; classes: {', '.join(names)}" if names else ""
    if kind is OutputKind.LOGITS:
        return f"{output.meaning}{classes}"
    if kind is OutputKind.MASK:
        numbers = (
            ", ".join(f"{index} {name}" for index, name in enumerate(names)) if len(names) > 1 else "1 where above 0"
        )
        return f"number of the best class, as a float: {numbers}; from: {output.meaning}"
    if len(names) > 2:
        return f"probability of each class (softmax); from: {output.meaning}{classes}"
    of_what = f"probability of {names[1]} (softmax over {' and '.join(names)})" if len(names) == 2 else "sigmoid"
    return f"{of_what}; from: {output.meaning}"

"""The outputs become what the user asked for: probabilities or the mask, in the file itself.

Algebra: of two classes the softmax gives ``exp(b) / (exp(a) + exp(b)) = sigmoid(b - a)`` to the second one, and it is
the better one where ``b - a > 0``. The difference is linear, and it is written as a 1x1 convolution with the weight
``[[-1, 1]]``, so that the passes that know convolutions move it before a resize and into the last layer: half the
head and half the upsampling. A single score is that of the second of two classes whose first scores 0.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import fx

from deploykit.errors import UsageError
from deploykit.graph.channels import RANK
from deploykit.graph.graph import Graph, Recorder, add_weight, aten, shape_of, sources, stand_for
from deploykit.vocab import OutputKind

NAME = "output_contract"


def output_contract(graph: Graph, kind: OutputKind, classes: Mapping[str, int]) -> Graph:
    """Return ``graph`` with outputs of ``kind`` instead of its scores; the names stay.

    ``classes`` are how many classes each output has along axis 1, 0 where it has none. Source: the definition of the
    softmax.

    Raises:
        UsageError: nothing of that kind follows from an output, since nothing says what its channels are.
    """
    copied = graph.copy()
    recorder = Recorder(NAME)
    module = copied.module
    result = next(node for node in module.graph.nodes if node.op == "output")
    found = []
    for name, scores in zip(copied.outputs, result.args[0], strict=True):
        channels = _channels(name, scores, kind, classes.get(name, 0))
        contract = _Contract(module, result, name)
        found.append(
            contract.probability(scores, channels)
            if kind is OutputKind.PROBABILITY
            else contract.mask(scores, channels)
        )
        recorder.fired(
            sources(scores),
            f"{name} gives the {kind} of its {channels} channels"
            if channels > 1
            else f"{name} gives the {kind} of its score",
        )
    result.args = (tuple(found),)
    return recorder.finish(copied)


def _channels(name: str, scores: fx.Node, kind: OutputKind, classes: int) -> int:
    """Return how many scores ``name`` has, or raise UsageError where they are not those of its classes."""
    shape = shape_of(scores)
    if shape is not None and len(shape) == RANK and shape[1] == max(classes, 1):
        return shape[1]
    raise UsageError(
        f"An output gives no {kind}: nothing says which class its channels are.",
        where=f"output {name}",
        found=f"shape {list(shape) if shape else 'unknown'}, {classes or 'no'} classes",
        expected="scores (N, C, H, W) with a name for each class, or one score (N, 1, H, W)",
        next_step="name the classes of this output in the recipe, set deploy = false for it, or export logits",
    )


class _Contract:
    """Appends the operations of one output before the end of the graph."""

    def __init__(self, module: fx.GraphModule, end: fx.Node, name: str) -> None:
        self._module, self._end, self._name = module, end, name

    def probability(self, scores: fx.Node, channels: int) -> fx.Node:
        """Return the softmax of more than two ``scores``, else the sigmoid of their difference."""
        if channels > 2:
            return self._call(aten.softmax.int, scores, 1)
        return self._call(aten.sigmoid.default, self._difference(scores, channels))

    def mask(self, scores: fx.Node, channels: int) -> fx.Node:
        """Return the number of the best class in the dtype of ``scores``; of equal ones that of the first."""
        if channels > 2:
            best = self._call(aten.argmax.default, scores, 1, True, dtype=torch.int64, channels=1)
        else:
            best = self._call(aten.gt.Scalar, self._difference(scores, channels), 0, dtype=torch.bool)
        dtype = scores.meta["val"].dtype
        with self._module.graph.inserting_before(self._end):
            node = self._module.graph.call_function(aten._to_copy.default, (best,), {"dtype": dtype})
        return self._noted(node, best, dtype)

    def _difference(self, scores: fx.Node, channels: int) -> fx.Node:
        if channels == 1:
            return scores
        weight = torch.tensor([-1.0, 1.0], dtype=scores.meta["val"].dtype).reshape(1, 2, 1, 1)
        read = add_weight(self._module, f"{NAME}.{self._name}.weight", weight, self._end)
        return self._call(aten.conv2d.default, scores, read, channels=1)

    def _call(
        self, operation: object, scores: fx.Node, *more: object, dtype: torch.dtype | None = None, channels: int = 0
    ) -> fx.Node:
        with self._module.graph.inserting_before(self._end):
            node = self._module.graph.call_function(operation, (scores, *more))  # type: ignore[arg-type]
        return self._noted(node, scores, dtype, channels)

    def _noted(self, node: fx.Node, like: fx.Node, dtype: torch.dtype | None, channels: int = 0) -> fx.Node:
        value = like.meta["val"]
        count, before, *sides = value.shape
        node.meta["val"] = value.new_empty((count, channels or before, *sides), dtype=dtype or value.dtype)
        node.meta["deploykit_module"] = NAME
        # Its value is none of the captured network's.
        stand_for(node, None, [NAME])
        return node

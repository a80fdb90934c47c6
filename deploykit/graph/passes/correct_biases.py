"""Biases take up the mean error that rounding the weights to 8 bits makes.

Algebra: with rounded weights ``W + dW`` the layer gives ``dW * x`` too much. Its mean over images, ``dW * E[x]``, is
known from calibration images, and is taken off the bias. Nagel et al., Data-Free Quantization Through Weight
Equalization and Bias Correction, ICCV 2019, section 4.2. Zeros at the border are not counted. The float network gets
the error that the integer one loses: this pass is for a graph whose weights are about to be rounded.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, fx

from deploykit.graph.channels import positions_of
from deploykit.graph.graph import Graph, Recorder, aten, is_call, module_path, sources, with_rewrite
from deploykit.graph.layers import CONVOLUTIONS, TRANSPOSED, groups_of, layer_weights, replace_weights

NAME = "correct_biases"

HIGHEST = 127
COMPUTED = "the weights are computed, not stored"
UNSEEN = "its input was not seen on calibration images"


def correct_biases(graph: Graph, means: Mapping[str, Tensor]) -> Graph:
    """Return ``graph`` with the biases of its layers corrected for weights in 8 bits.

    ``means`` is value (node name) → mean of each channel (C,) over calibration images.
    """

    def rewrite(module: fx.GraphModule, recorder: Recorder) -> None:
        for node in list(module.graph.nodes):
            if is_call(node, *CONVOLUTIONS, *TRANSPOSED, aten.linear.default):
                _correct(module, node, means, recorder)

    return with_rewrite(graph, NAME, rewrite)


def _correct(module: fx.GraphModule, node: fx.Node, means: Mapping[str, Tensor], recorder: Recorder) -> None:
    read, given = layer_weights(module, node), node.args[0]
    if read is None:
        recorder.skipped(module_path(node), COMPUTED)
        return
    mean = means.get(given.name) if isinstance(given, fx.Node) else None
    if mean is None:
        recorder.skipped(module_path(node), UNSEEN)
        return
    weight, bias = read
    transposed = is_call(node, *TRANSPOSED)
    error = rounded_to_8_bits(weight, by_column=transposed) - weight
    taps = error.flatten(2).sum(2) if error.dim() > 2 else error
    groups = 1 if is_call(node, aten.linear.default) else groups_of(node)
    if transposed:
        # (in, out_per_group) of each group: what comes from one input, summed over the inputs of the group.
        shift = (taps.reshape(groups, -1, taps.shape[1]) * mean.to(taps).reshape(groups, -1, 1)).sum(1).flatten()
        # Every input pixel gives each tap once, and there are more output pixels than that.
        shift = shift * positions_of(given) / positions_of(node)
    else:
        shift = (taps.reshape(groups, -1, taps.shape[1]) @ mean.to(taps).reshape(groups, -1, 1)).flatten()
    if not bool(shift.any()):
        return
    recorder.fired(sources(node), f"by up to {float(shift.abs().max()):.3g}")
    replace_weights(module, node, weight, -shift if bias is None else bias - shift)


def rounded_to_8_bits(weight: Tensor, *, by_column: bool = False) -> Tensor:
    """Return ``weight`` as 8-bit integers with a scale for each output channel hold it: symmetric, -127 to 127.

    Axis 0 is every output channel; with ``by_column`` (transposed convolutions) axis 1 is, of each group.
    """
    axes = [axis for axis in range(weight.dim()) if axis != int(by_column)]
    scale = weight.abs().amax(axes, keepdim=True) / HIGHEST
    scale = torch.where(scale > 0, scale, 1.0)
    return torch.round(weight / scale) * scale

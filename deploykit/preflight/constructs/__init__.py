"""The constructs of vision networks that the support matrix knows, each with a small network around it."""

from __future__ import annotations

from deploykit.preflight.constructs.convolution import CONVOLUTIONS
from deploykit.preflight.constructs.moving import ATTENTION, MOVING, PICKING
from deploykit.preflight.constructs.network import Construct, construct_network
from deploykit.preflight.constructs.pointwise import ACTIVATIONS, GATES, NORMALISATIONS
from deploykit.preflight.constructs.spatial import POOLING, RESIZING

GROUPS: dict[str, tuple[Construct, ...]] = {
    "Convolutions and padding": CONVOLUTIONS,
    "Activations": ACTIVATIONS,
    "Normalisations": NORMALISATIONS,
    "Gates and arithmetic": GATES,
    "Pooling": POOLING,
    "Resizing and warping": RESIZING,
    "Moving values": MOVING,
    "Picking values": PICKING,
    "Attention": ATTENTION,
}
CONSTRUCTS: dict[str, Construct] = {one.name: one for group in GROUPS.values() for one in group}

__all__ = ["CONSTRUCTS", "GROUPS", "Construct", "construct_network"]

"""What a network or an exported file is made of and costs: ``inspect`` for both, ``network_cost`` for costs alone."""

from __future__ import annotations

from deploykit.inspection.exported import inspect_file
from deploykit.inspection.network import inspect_network, network_cost
from deploykit.inspection.records import FileInspection, FormCost, NetworkCost, NetworkInspection
from deploykit.inspection.subject import inspect

__all__ = [
    "FileInspection",
    "FormCost",
    "NetworkCost",
    "NetworkInspection",
    "inspect",
    "inspect_file",
    "inspect_network",
    "network_cost",
]

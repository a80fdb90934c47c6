"""The papers' losses, one file each, and the table that says which network is trained with which.

Where a paper's text and the code that its authors released disagree, the default follows the code.
"""

from __future__ import annotations

from deploykit.training.losses.elb import AdaptiveWeightLoss
from deploykit.training.losses.objective import Loss, Objective
from deploykit.training.losses.portraitnet import EdgeHeadLoss, TwoViews, consistency
from deploykit.training.losses.sappm import DeepSupervisionLoss
from deploykit.training.losses.sinet import BandCrossEntropy
from deploykit.training.losses.targets import Targets

LOSSES: dict[str, Objective] = {
    "sinet": Objective(BandCrossEntropy()),
    "portraitnet": Objective(EdgeHeadLoss(), TwoViews()),
    "mobilenetv3_sappm": Objective(DeepSupervisionLoss()),
    "elb": Objective(AdaptiveWeightLoss()),
    # Equation 5, "similar" to PortraitNet's: alpha = 1 for the constraint loss, beta = 0.3 for the boundary loss.
    "rcrnet": Objective(EdgeHeadLoss(edge_weight=0.3), TwoViews(weight=1.0)),
}

__all__ = [
    "LOSSES",
    "AdaptiveWeightLoss",
    "BandCrossEntropy",
    "DeepSupervisionLoss",
    "EdgeHeadLoss",
    "Loss",
    "Objective",
    "Targets",
    "TwoViews",
    "consistency",
]

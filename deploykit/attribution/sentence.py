"""The one sentence that a person reads first."""

from __future__ import annotations

import math
from collections.abc import Sequence

from deploykit.attribution.records import ModuleError, Part, Verdict
from deploykit.attribution.rows import Measured
from deploykit.vocab import Precision

_CAUSES = {
    Part.PRECISION: "its values do not fit the precision of the file",
    Part.CONVERTER: "the file itself computes something else",
    Part.KERNEL: "the file is right, and the runtime computes something else",
    None: "the file or the runtime computes something else",
}


def sentence(rows: Sequence[ModuleError], measured: Sequence[Measured], precision: Precision) -> str:
    """Return which module is the first where the error jumps, in the order of execution, or that none is accused."""
    if not measured:
        return "Nothing can be said: no value of the file could be matched to a value of the network."
    accused = {row.module: row for row in rows if row.verdict is Verdict.ACCUSED}
    if not accused:
        worst = max(measured, key=lambda one: one.judgement.error)
        return (
            f"No layer is accused: rounding to {precision} explains every error; the largest that a layer adds is "
            f"{worst.judgement.error:.1e} (relative L2), in {worst.owner.modules[0]}."
        )
    one = next(one for one in measured if not one.judgement.clean)
    row = accused[one.owner.modules[0]]
    others = f" ({len(accused) - 1} more accused)" if len(accused) > 1 else ""
    together = f", or in what is joined with it ({', '.join(row.joined)})" if row.joined else ""
    adds = f"it adds {one.judgement.error:.1e} (relative L2) where rounding explains {one.judgement.explained:.1e}"
    if math.isinf(one.judgement.error):
        adds = "it is not finite where the network's is"
    return (
        f"The error jumps first in {row.module}{together}, at the value {one.value} ({one.node.operation}): "
        f"{adds}; {_CAUSES[one.cause]}{others}."
    )

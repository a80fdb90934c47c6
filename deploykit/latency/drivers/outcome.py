"""What a driver gives back in the end: measurements, or an error that says why there is none."""

from __future__ import annotations

from deploykit.errors import DeviceError
from deploykit.latency_records import Benchmark


def require_measured(result: Benchmark) -> Benchmark:
    """Return ``result``. Raises DeviceError, with every reason, where nothing at all was measured."""
    if result.measured:
        return result
    reasons = dict.fromkeys(f"{one.artifact}: {one.reason}" for one in result.skipped)
    raise DeviceError(
        "Nothing was measured on the device.",
        where=result.machine.name if result.machine else None,
        found="; ".join(reasons)[:1000] or result.ended or "nothing was tried",
        expected="at least one file that the device runs to the end",
        next_step="look at the reasons; deploykit devices lists accelerators",
    )

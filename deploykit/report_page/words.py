"""Figures in words, with their units: the same on the page and in Markdown."""

from __future__ import annotations

from pathlib import Path

from deploykit.evaluation.records import Estimate
from deploykit.latency_records import Machine

SHORT_HASH = 12
MINUS = "\N{MINUS SIGN}"


def place(path: Path) -> str:
    """Return ``path`` as a command takes it here: relative where it is below the current folder."""
    absolute, here = path.absolute(), Path.cwd()
    return absolute.relative_to(here).as_posix() if absolute.is_relative_to(here) else str(path)


def size(count: int) -> str:
    """Return bytes as kB or MB of a thousand."""
    return f"{count / 1e6:.2f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def milliseconds(seconds: float) -> str:
    """Return ``seconds`` in milliseconds with three digits that say something."""
    value = seconds * 1e3
    return f"{value:.1f} ms" if value >= 100 else f"{value:.2f} ms" if value >= 1 else f"{value:.3f} ms"


def interval(low_s: float, high_s: float) -> str:
    """Return an interval of seconds in milliseconds."""
    return f"{milliseconds(low_s).removesuffix(' ms')} to {milliseconds(high_s)}"


def percent(share: float) -> str:
    """Return a share of 1 in percent."""
    return f"{100 * share:.2f} %"


def points(difference: float) -> str:
    """Return a difference of shares in points, one of which is a hundredth, with its sign."""
    rounded = f"{100 * difference:+.3f}"
    return "±0.000 points" if float(rounded) == 0 else f"{rounded.replace('-', MINUS)} points"


def point_interval(estimate: Estimate) -> str:
    """Return the interval of a difference in points; an empty text where there is none."""
    if estimate.interval is None:
        return ""
    low, high = (f"{100 * one:+z.3f}".replace("-", MINUS) for one in estimate.interval)
    return f"{low} to {high}"


def percent_interval(estimate: Estimate) -> str:
    """Return the interval of a share in percent; an empty text where there is none."""
    if estimate.interval is None:
        return ""
    return f"{100 * estimate.interval[0]:.2f} to {100 * estimate.interval[1]:.2f} %"


def scientific(value: float) -> str:
    """Return a small number with two digits."""
    return f"{value:.1e}"


def short_hash(digest: str) -> str:
    """Return the beginning of a hexadecimal digest."""
    return digest[:SHORT_HASH]


def machine_words(machine: Machine) -> tuple[tuple[str, str], ...]:
    """Return name and value of what a machine is, without what its system does not say."""
    cores = f"{machine.cores} usable" + (f", {machine.physical_cores} physical" if machine.physical_cores else "")
    found = [("processor", machine.processor), ("architecture", machine.architecture), ("system", machine.system)]
    found.append(("cores", cores))
    if machine.memory_bytes:
        found.append(("memory", f"{machine.memory_bytes / 2**30:.1f} GiB"))
    if machine.virtual is not None:
        found.append(("virtual", "yes" if machine.virtual else "no"))
    if machine.governor:
        found.append(("frequency governor", machine.governor))
    if machine.turbo is not None:
        found.append(("turbo", "on" if machine.turbo else "off"))
    return tuple(found)

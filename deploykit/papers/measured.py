"""What was measured here on the networks of the papers: counts, and scores on held-out portraits."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from deploykit.recipe import Recipe
from deploykit.records import versioned
from deploykit.resources import bundled

COUNTS_FILE = "network_costs.json"
COUNTS_KIND = "network-costs"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Subject:
    """What is counted: ``figure``, ``parameters`` or a convention, on one form of a recipe's network.

    ``input_size`` is height and width in pixels. ``merged``: BatchNorm folded and branches merged, else as it is
    trained. ``outputs`` are those that are computed.
    """

    recipe: str
    figure: str
    input_size: tuple[int, int]
    merged: bool
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class HeldOut:
    """Scores of a bundled checkpoint on the held-out synthetic portraits, each a mean over images from 0 to 1."""

    portrait_iou: float
    two_class_miou: float


@cache
def recorded_counts() -> dict[Subject, int]:
    """Return the counts in ``benchmarks/network_costs.json``, which ``benchmarks/network_costs.py`` writes."""
    record = json.loads((bundled("benchmarks") / COUNTS_FILE).read_text("utf-8"))
    return {
        Subject(
            recipe=row["recipe"],
            figure=row["figure"],
            input_size=(row["input_size"][0], row["input_size"][1]),
            merged=row["merged"],
            outputs=tuple(row["outputs"]),
        ): row["count"]
        for row in record["body"]
    }


def counts_record(counts: dict[Subject, int]) -> dict[str, Any]:
    """Return ``counts`` as the record that ``recorded_counts`` reads."""
    return versioned(COUNTS_KIND, [{**asdict(subject), "count": value} for subject, value in counts.items()])


def count(subjects: Iterable[Subject], say: Say) -> dict[Subject, int]:
    """Return the count of each of ``subjects``, taken now; every network is captured once for each set of outputs."""
    # torch takes seconds to import, and recorded counts need none of it.
    from deploykit.inspection import network_cost
    from deploykit.vocab import Convention

    by_capture: dict[tuple[str, tuple[int, int], tuple[str, ...]], list[Subject]] = {}
    for subject in subjects:
        by_capture.setdefault((subject.recipe, subject.input_size, subject.outputs), []).append(subject)
    counted: dict[Subject, int] = {}
    for (recipe, size, outputs), own in by_capture.items():
        say(f"counting {recipe} at {size[0]}x{size[1]}")
        cost = network_cost(recipe, size, outputs=outputs)
        for subject in own:
            form = cost.form(merged=subject.merged, every_output=False).cost
            parameters = subject.figure == "parameters"
            counted[subject] = form.parameters if parameters else form.macs[Convention(subject.figure)]
    return counted


def held_out(recipe: Recipe) -> HeldOut | None:
    """Return the scores of the recipe's bundled checkpoint; None where it has none or was not scored."""
    path = recipe.checkpoint_path()
    entry = _manifest().get(path.name) if path is not None else None
    if entry is None:
        return None
    return HeldOut(entry["held_out_foreground_iou"], entry["held_out_two_class_miou"])


@cache
def _manifest() -> dict[str, dict[str, Any]]:
    return tomllib.loads((bundled("checkpoints") / "manifest.toml").read_text("utf-8"))

"""Options that several commands share: one name, one meaning, one help text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from deploykit.network import LoadedNetwork

RecipeArgument = Annotated[
    str | None,
    typer.Argument(metavar="RECIPE", help="A bundled recipe, or the path of a .toml file.", show_default=False),
]
CheckpointOption = Annotated[
    Path | None,
    typer.Option("--checkpoint", help="Trained weights instead of the recipe's own.", show_default=False),
]
CheckpointKeyOption = Annotated[
    str | None,
    typer.Option("--checkpoint-key", help="Take this nested state dict, for example ema.module.", show_default=False),
]
ImagesOption = Annotated[
    Path | None,
    typer.Option("--images", help="A photo, or a folder of photos, to compare on as well.", show_default=False),
]
OutputDirOption = Annotated[
    Path, typer.Option("--output-dir", "-o", help="Where artifacts go, one folder for each plan.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON record on stdout instead of a table.")]
VerboseOption = Annotated[bool, typer.Option("--verbose", help="Show what the converters print, and causes of errors.")]
SizeOption = Annotated[
    str | None,
    typer.Option("--size", metavar="HxW", help="Another input size than the recipe's.", show_default=False),
]
# How long each file is measured, where several rules say so.
RunsOption = Annotated[int, typer.Option("--runs", help="At least so many runs of each, if --max-seconds allows.")]
SecondsOption = Annotated[
    float, typer.Option("--seconds", help="At least so many seconds of runs of each, if --max-seconds allows.")
]
PrecisionTargetOption = Annotated[
    str,
    typer.Option(
        "--precision-target",
        help="Then go on until the 95 % interval of the median reaches no further than this to either side; none: "
        "do not.",
    ),
]
MaxSecondsOption = Annotated[
    float,
    typer.Option(
        "--max-seconds",
        help="No more than so many seconds of runs of each, whatever else is asked for; 5 runs are done in any case.",
    ),
]
ResultsDirOption = Annotated[
    Path | None,
    typer.Option("--results-dir", help="Where --save writes.", show_default="benchmarks/results"),
]


def split_names(given: Sequence[str]) -> list[str]:
    """Return the names of an option that may be repeated, each time with several names between commas."""
    return [name.strip() for item in given for name in item.split(",")]


def require_known(names: Sequence[str], known: Sequence[str], option: str, problem: str) -> None:
    """Raise UsageError, which begins with ``problem``, where one of ``names`` is not among the ``known``."""
    from deploykit.errors import UsageError

    unknown = [name for name in names if name not in known]
    if unknown:
        raise UsageError(
            problem,
            where=option,
            found=", ".join(name or "an empty name" for name in unknown),
            expected=", ".join(known),
        )


def parse_size(text: str | None) -> tuple[int, int] | None:
    """Return (height, width) of a text such as 256x192; None stays None."""
    from deploykit.errors import UsageError

    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdecimal() and 0 < int(part) <= 8192 for part in parts):
        raise UsageError(
            "The input size is not understood.",
            where="--size",
            found=text,
            expected="HEIGHTxWIDTH in pixels, each from 1 to 8192, for example 256x192",
        )
    return int(parts[0]), int(parts[1])


def load_network_at(
    size: tuple[int, int] | None, recipe: str | None, checkpoint: Path | None, checkpoint_key: str | None
) -> LoadedNetwork:
    """Return the network that a command is about, at ``size`` (height, width) where there is one.

    Without ``recipe`` it is the one named in ./deploykit.toml, else the one that ``checkpoint`` belongs to, else the
    default one.
    """
    from deploykit.network import load_network, recipe_for
    from deploykit.recipe import default_recipe, project_recipe

    here = Path.cwd()
    chosen = recipe_for(recipe or project_recipe(here), checkpoint, default_recipe(here), checkpoint_key)
    sized = chosen if size is None else chosen.with_size(*size)
    return load_network(sized, checkpoint=checkpoint, key=checkpoint_key)

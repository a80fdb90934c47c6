"""Makes the pages of docs/ that can be made from the code; with --check only says which are stale.

Run: python docs/generate.py [--check]
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
import sys
import tomllib
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import networks_page
import precision_page
import speed_page
import support_page
import typer
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from deploykit.cli.main import app
from deploykit.graph import optimize
from deploykit.graph.simplify import PASSES
from deploykit.recipe import ProjectFile, RecipeFile
from deploykit.report.gate_schema import gate_schema
from deploykit.targets.schemes import Scheme, precisions_of, scheme
from deploykit.targets.table import TARGETS, part
from deploykit.vocab import Precision, Target

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
MADE = "<!-- Made by docs/generate.py: change the code, then run make docs. -->"
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)[^)]*\)")
# A command stands on a line of its own, after a prompt, or in backticks.
COMMAND = re.compile(r"(?:^(?:\$ )?|`)deploykit ([a-z][a-z-]*)([^`\n]*)", re.MULTILINE)
MAKE = re.compile(r"(?:^(?:\$ )?|`)make ([a-z][a-z-]*)(?=[`\s])", re.MULTILINE)
EXTRAS = re.compile(r"'deploykit\[([a-z,]+)\]'")
# Help texts must not depend on the terminal that makes them.
HELP_WIDTH = 80


def commands() -> str:
    """Return the help text of every command."""
    root = typer.main.get_command(app)
    context = root.make_context("deploykit", ["recipes"], resilient_parsing=True, terminal_width=HELP_WIDTH)
    codes = "Exit codes: 0 pass, 1 a verification failed, 2 the user can fix it, 70 a bug."
    parts = [MADE, "# Commands", "", codes, ""]
    for name, command, own in _commands_of(root, context):
        parts += [f"## deploykit {name}", "", "```text", command.get_help(own).rstrip(), "```", ""]
    return "\n".join(parts)


def _commands_of(group: Any, context: Any, before: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield every command of a group with its whole name and its context; those of an inner group in its place."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        own = command.make_context(name, [], parent=context, resilient_parsing=True)
        if hasattr(command, "list_commands"):
            yield from _commands_of(command, own, f"{before}{name} ")
        else:
            yield f"{before}{name}", command, own


def targets() -> str:
    """Return the support matrix, read from the table that the code obeys."""
    parts = [MADE, "# Targets", "", "What each target takes; anything else is refused with exit code 2.", ""]
    columns = ("target", "file", "precisions", "layouts", "input kinds", "output kinds", "opsets", "minimum OS")
    parts += ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in TARGETS.values():
        cells = (
            row.target,
            f"`{row.suffix}`",
            _listed(precisions_of(row.target)),
            _listed(row.layouts),
            _listed(row.input_kinds),
            _listed(row.output_kinds),
            _with_default(row.opsets, row.default_opset),
            _with_default(row.minimum_os, row.default_minimum_os),
        )
        parts.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    parts += ["", "| target | verified on | needs | install |", "|---|---|---|---|"]
    for row in TARGETS.values():
        parts.append(
            f"| {row.target} | {row.runtime} | {', '.join(row.packages.values())} | `{row.install_command()}` |"
        )
    parts += ["", "## Precisions", "", "| precision | " + " | ".join(TARGETS) + " |", "|---" * (1 + len(TARGETS)) + "|"]
    for precision in Precision:
        parts.append(f"| `{precision}` | " + " | ".join(_scheme(target, precision) for target in TARGETS) + " |")
    return "\n".join([*parts, ""])


def _scheme(target: Target, precision: Precision) -> str:
    known = scheme(target, precision)
    if isinstance(known, Scheme):
        return known.meaning + (f" (from {known.minimum_os} on)" if known.minimum_os else "")
    return f"refused: {known.reason}; nearest: `{known.nearest}`"


def _listed(values: tuple[object, ...]) -> str:
    return ", ".join(str(value) for value in values)


def _with_default(values: tuple[object, ...], default: object) -> str:
    return ", ".join(f"**{value}**" if value == default else str(value) for value in values) or "-"


def recipes() -> str:
    """Return the reference of every table and key of a recipe."""
    parts = [
        MADE,
        "# Recipe reference",
        "",
        "A recipe is a TOML file. Unknown keys are refused, and a value has to be of its own type.",
        "",
    ]
    for title, model in (("The recipe", RecipeFile), ("`deploykit.toml`", ProjectFile)):
        for heading, section in _sections(title, model):
            parts += [f"## {heading}", "", (section.__doc__ or "").strip().replace("``", "`"), ""]
            parts += ["| key | type | default | meaning |", "|---|---|---|---|"]
            for key, field in section.model_fields.items():
                default = "required" if field.is_required() else _default(field.get_default(call_default_factory=True))
                parts.append(f"| `{key}` | {_type_name(field.annotation)} | {default} | {field.description or ''} |")
            parts.append("")
    return "\n".join(parts)


def _sections(title: str, model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield each table with its name in TOML; a table that comes several times is described once."""
    pending = [(title, "", model)]
    seen: set[type[BaseModel]] = set()
    while pending:
        heading, path, one = pending.pop(0)
        if one in seen:
            continue
        seen.add(one)
        yield heading, one
        inner = [
            (key, field, found) for key, field in one.model_fields.items() for found in _models_in(field.annotation)
        ]
        for key, field, found in inner:
            name = f"{path}{key if sum(other is found for _, _, other in inner) == 1 else '*'}"
            repeated = typing.get_origin(field.annotation) is tuple
            pending.append((f"`[[{name}]]`" if repeated else f"`[{name}]`", f"{name}.", found))


def _models_in(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    found = [model for part in typing.get_args(annotation) for model in _models_in(part)]
    return list(dict.fromkeys(found))


def _type_name(annotation: object) -> str:
    if typing.get_origin(annotation) is typing.Annotated:
        return _type_name(typing.get_args(annotation)[0])
    arguments = [argument for argument in typing.get_args(annotation) if argument not in (type(None), Ellipsis)]
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        return ", ".join(f"`{argument}`" for argument in arguments)
    if origin is tuple:
        return "list of " + _type_name(arguments[0])
    if origin is dict:
        return "table"
    if origin is not None:
        return _type_name(arguments[0])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "table"
    names = {str: "string", int: "integer", float: "number", bool: "true or false"}
    members = getattr(annotation, "__members__", None)
    if members:
        return ", ".join(f"`{member.value}`" for member in members.values())
    return names.get(typing.cast(type, annotation), str(annotation))


def _default(value: object) -> str:
    if value is None or value is PydanticUndefined:
        return "none"
    if isinstance(value, BaseModel):
        return _bounds(value) if "reason" in type(value).model_fields else "see below"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(_default(item) for item in value) + "]"
    return f"`{value}`" if str(value) else '`""`'


def _bounds(value: BaseModel) -> str:
    given = value.model_dump(exclude_none=True, exclude={"reason"})
    return ", ".join(f"`{key} = {bound}`" for key, bound in given.items())


def passes() -> str:
    """Return the passes in the order in which they run, with what each module says of itself."""
    order = "Target-independent passes, in order. Folding and merging repeat until neither finds anything."
    parts = [MADE, "# Passes", "", order, ""]
    for name in PASSES:
        parts += _described(f"deploykit.graph.passes.{name}", name)
    parts += ["## Optimizing", "", "Exact as well; repeated in this order until none finds anything to do.", ""]
    for name in optimize.PASSES:
        parts += _described(f"deploykit.graph.passes.{name}", name)
    parts += ["## With `--input-kind image`", ""]
    parts += _described("deploykit.graph.passes.build_in_preprocessing", "build_in_preprocessing")
    parts += ["## With `--output-kind probability` or `mask`", ""]
    parts += _described("deploykit.graph.passes.output_contract", "output_contract")
    parts += ["## With `--precision int8`, `w8a16` or `int8-weights`", ""]
    for name in ("equalize_channels", "correct_biases"):
        parts += _described(f"deploykit.graph.passes.{name}", name)
    parts += ["## For one target", ""]
    for target in TARGETS:
        lowering = part(target, "lowering")
        for table in ("SINGLE_FORMS", "FORMS", "HALF_FORMS"):
            for one in getattr(lowering, table, ()):
                parts += _described(one.__module__, f"{one.__name__} ({target}, optional)")
        for one in lowering.PASSES:
            parts += _described(one.__module__, f"{one.__name__} ({target})")
        for name in getattr(lowering, "ON_FILES", ()):
            text = inspect.cleandoc(getattr(part(target, "rewriting"), name).__doc__ or "").replace("``", "`")
            parts += [f"### {name} ({target}, optional, on the file)", "", text, ""]
    return "\n".join(parts)


def _described(module: str, title: str) -> list[str]:
    text = (importlib.import_module(module).__doc__ or "").strip().replace("``", "`")
    return [f"### {title}", "", text, ""]


def networks() -> str:
    """Return the bundled networks as recorded, beside the figures of their papers."""
    return networks_page.page(MADE)


def precision() -> str:
    """Return what half precision and integers cost in masks, as recorded."""
    return precision_page.page(MADE)


def support() -> str:
    """Return the support matrix of constructs as stated and as run, and the rules of a dry run."""
    return support_page.page(MADE)


def speed() -> str:
    """Return the exported files against the converters' own, as measured."""
    return speed_page.page(MADE)


def speed_chart() -> str:
    """Return the bar chart of that page."""
    return speed_page.chart(MADE)


def schema_of_the_gate() -> str:
    """Return the JSON schema of what the gate prints."""
    return json.dumps(gate_schema(), indent=2) + "\n"


PAGES: dict[str, Callable[[], str]] = {
    "commands.md": commands,
    "gate.schema.json": schema_of_the_gate,
    "networks.md": networks,
    "passes.md": passes,
    "precision.md": precision,
    "recipes.md": recipes,
    "speed.md": speed,
    "speed.svg": speed_chart,
    "support.md": support,
    "targets.md": targets,
}


def stale_pages(folder: Path) -> list[str]:
    """Return the generated pages in ``folder`` that the code would write otherwise."""
    return [
        name
        for name, make in PAGES.items()
        if not (folder / name).is_file() or (folder / name).read_text("utf-8") != make()
    ]


def broken_references(root: Path) -> list[str]:
    """Return links to files that are not there, and commands, options, make targets and extras that do not exist."""
    found = []
    rules = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"])
    for page in sorted([*root.glob("*.md"), *root.glob("docs/**/*.md"), *root.glob("checkpoints/*.md")]):
        text = page.read_text("utf-8")
        links = [link for link in LINK.findall(text) if "://" not in link]
        wrong = [f"link to {link}" for link in links if not (page.parent / link).exists()]
        wrong += _unknown_commands(text)
        wrong += [f"make {rule}" for rule in MAKE.findall(text) if rule not in rules]
        named = [extra for listed in EXTRAS.findall(text) for extra in listed.split(",")]
        wrong += [f"extra {extra}" for extra in named if extra not in extras]
        found += [f"{page.relative_to(root)}: {what}" for what in wrong]
    return found


def _unknown_commands(text: str) -> list[str]:
    command = typer.main.get_command(app)
    context = command.make_context("deploykit", ["recipes"], resilient_parsing=True)
    wrong = []
    for first, after in COMMAND.findall(text):
        name, known, rest = first, command.get_command(context, first), after
        if hasattr(known, "list_commands"):
            inner, _, rest = after.strip().partition(" ")
            name, known = f"{first} {inner}", known.get_command(context, inner)
        if known is None:
            wrong.append(f"deploykit {name}")
            continue
        options = {option for parameter in known.params for option in parameter.opts} | {"--help"}
        given = re.findall(r"(?:(?<=\s)|^)--?[a-z][a-z-]*", rest.split("#")[0])
        wrong += [f"deploykit {name} {option}" for option in given if option not in options]
    return wrong


def main() -> int:
    """Write the pages, or with --check compare them; return the exit code."""
    if "--check" not in sys.argv[1:]:
        for name, make in PAGES.items():
            (DOCS / name).write_text(make(), "utf-8")
        return 0
    problems = [f"docs/{name} is stale: run make docs" for name in stale_pages(DOCS)] + broken_references(ROOT)
    for problem in problems:
        sys.stderr.write(f"{problem}\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

"""``deploykit doctor``: which targets, runtimes and devices this machine has, and how to add each missing one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from deploykit.doctor import Diagnosis, TargetState


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON record on stdout.")] = False) -> None:
    """Show which targets, runtimes and devices this machine has, and the command that adds each missing one."""
    from deploykit.cli.console import print_json, progress, stdout_console
    from deploykit.doctor import diagnose
    from deploykit.records import versioned

    with progress("doctor") as say:
        say("looking at packages and devices")
        found = diagnose()
    if as_json:
        print_json(versioned("diagnosis", found))
        return
    console = stdout_console()
    for table in (_machine(found), _targets(found), _devices(found)):
        console.print(table)
    for line in _versions(found):
        console.print(line, markup=False)


def _table(title: str, *columns: str) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _row(table: Table, *cells: str) -> None:
    from rich.markup import escape

    table.add_row(*(escape(cell) for cell in cells))


def _machine(found: Diagnosis) -> Table:
    table = _table("Machine", "what", "found")
    physical = "" if found.cores_physical is None else f", {found.cores_physical} physical"
    _row(table, "deploykit", found.deploykit)
    _row(table, "Python", found.python)
    _row(table, "PyTorch", found.torch.installed or "not installed")
    _row(table, "system", found.system)
    _row(table, "CPU", found.cpu)
    _row(table, "cores", f"{found.cores_usable} usable{physical}")
    _row(table, "memory", f"{found.memory_bytes / 2**30:.1f} GiB")
    return table


def _targets(found: Diagnosis) -> Table:
    table = _table("Targets", "target", "export", "runs here on", "bench", "packages", "what to do")
    for state in found.targets:
        packages = ", ".join(f"{one.distribution} {one.installed or '(missing)'}" for one in state.packages)
        _row(table, state.target, _yes(state.ready), state.runtime, _yes(state.measurable), packages, _advice(state))
    return table


def _devices(found: Diagnosis) -> Table:
    table = _table("Devices", "kind", "ready", "found", "what to do")
    for device in found.devices:
        advice = f"{device.reason}: {device.next_step}" if device.reason else ""
        _row(table, device.kind, _yes(device.ready), "\n".join(device.found) or "none", advice)
    return table


def _versions(found: Diagnosis) -> list[str]:
    if not found.constraints_found:
        return ["No constraints file beside the package: the tested versions are not known here."]
    if not found.differences:
        return ["Every pinned package that is installed has the version that was tested."]
    return [f"{one.distribution}: tested with {one.tested}, installed {one.installed}" for one in found.differences]


def _advice(state: TargetState) -> str:
    return f"{state.reason}: {state.next_step}" if state.reason else ""


def _yes(value: bool) -> str:
    return "yes" if value else "no"

"""Certificates, their checks and the checks of manifests as tables and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType
    from rich.table import Table

    from deploykit.certificate.records import Block, Certificate, CertificateCheck
    from deploykit.provenance.records import ManifestCheck

SHOWN = 12
_UNSIGNED = "Unsigned: this finds corruption and mistakes, and does not stop an adversary."


def of_certificate(certificate: Certificate) -> Iterator[RenderableType]:
    """Yield the blocks with the largest bounds, and what holds for all of them."""
    from rich.table import Table

    blocks = sorted(certificate.blocks, key=lambda block: -(block.float32.worst_bound or 0.0))
    table = Table(
        title=f"{certificate.recipe}: the {min(SHOWN, len(blocks))} blocks of {len(blocks)} with the largest bounds",
        title_justify="left",
    )
    for name in ("block", "kind", "layer"):
        table.add_column(name, overflow="fold")
    for name in ("float64 error", "roundings", "float32 bound", "measured", "share", "float16 bound"):
        table.add_column(name, justify="right")
    for block in blocks[:SHOWN]:
        table.add_row(*_cells(block))
    yield table
    if certificate.blocks:
        yield _sentence(certificate)
    for fault in certificate.faults():
        yield f"  {fault}"
    verdict = "every block holds" if certificate.passed else "NOT CERTIFIED, no file was written"
    yield f"{certificate.recipe}: {verdict}. {_UNSIGNED}"


def _cells(block: Block) -> tuple[str, ...]:
    shape = block.layer.weight.shape
    kernel = "x".join(map(str, shape[2:])) or "linear"
    return (
        block.name,
        block.kind,
        f"{kernel}, {shape[0]} out, groups {block.layer.groups}",
        f"{block.measured.float64_error:.1e}",
        str(block.float32.roundings),
        _number(block.float32.worst_bound),
        f"{block.measured.float32_error:.1e}",
        f"{block.measured.share_of_bound:.1%}",
        "overflow" if block.float16.overflows else _number(block.float16.worst_bound),
    )


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.1e}"


def _sentence(certificate: Certificate) -> str:
    worst = max(block.measured.float64_error for block in certificate.blocks)
    share = max(block.measured.share_of_bound for block in certificate.blocks)
    overflow = sum(block.float16.overflows for block in certificate.blocks)
    return (
        f"worst float64 error {worst:.1e}; float32 on seeded inputs used at most {share:.1%} of its bound; "
        f"{overflow} blocks can overflow float16\n{certificate.scope}"
    )


def summary_of_certificate(certificate: Certificate) -> dict[str, Any]:
    """Return what ``--json`` says of a certificate that was written: its file holds the rest."""
    measured = [block.measured for block in certificate.blocks]
    return {
        "blocks": len(certificate.blocks),
        "merged": sum(block.kind == "merge" for block in certificate.blocks),
        "worst_float64_error": max((one.float64_error for one in measured), default=0.0),
        "worst_share_of_bound": max((one.share_of_bound for one in measured), default=0.0),
        "faults": list(certificate.faults()),
        "passed": certificate.passed,
    }


def show_certificate_check(check: CertificateCheck, as_json: bool) -> None:
    """Print what became of checking a certificate against a checkpoint."""
    from deploykit.cli.console import print_json, stdout_console
    from deploykit.records import to_json, versioned

    if as_json:
        body = {key: value for key, value in to_json(check).items() if key != "certificate"}
        print_json(versioned("verify-certificate", {**body, "passed": check.passed}))
        return
    console = stdout_console()
    if check.differences:
        console.print(_differences(check))
    count = len(check.differences)
    verdict = "as certified" if check.passed else f"FAILED, {count} difference{'s' if count > 1 else ''}"
    console.print(f"{check.recipe}: {check.blocks} blocks, {verdict}. {_UNSIGNED}", markup=False)


def _differences(check: CertificateCheck) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"{check.recipe}: not as certified", title_justify="left")
    for name in ("block", "what", "recorded", "found"):
        table.add_column(name, overflow="fold")
    for one in check.differences:
        table.add_row(*(escape(text) for text in (one.where or "(certificate)", one.what, one.recorded, one.found)))
    return table


def show_manifest_check(check: ManifestCheck, as_json: bool) -> None:
    """Print what became of checking a manifest, link by link."""
    from rich.markup import escape
    from rich.table import Table

    from deploykit.cli.console import print_json, stdout_console
    from deploykit.records import to_json, versioned

    if as_json:
        print_json(versioned("verify-manifest", {**to_json(check), "passed": check.passed}))
        return
    table = Table(title=f"{check.artifact}: from the checkpoint to the measurements", title_justify="left")
    for name in ("link", "verdict", "what"):
        table.add_column(name, overflow="fold")
    for link in check.links:
        table.add_row(link.name, link.verdict.value, escape("\n".join((link.detail, *link.findings))))
    console = stdout_console()
    console.print(table)
    skipped = [link.name for link in check.links if link.verdict.value == "skipped"]
    verdict = "as recorded" if check.passed else "FAILED"
    left = f"; not checked: {', '.join(skipped)}" if skipped else ""
    console.print(f"{check.artifact}: {verdict}{left}. {_UNSIGNED}", markup=False)

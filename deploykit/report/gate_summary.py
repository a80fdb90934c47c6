"""A gate's findings for a change under review: a Markdown summary, and annotations as GitHub's workflow commands."""

from __future__ import annotations

import html
import re

from deploykit.gate_records import Finding, GateReport, GateVerdict
from deploykit.report.gate_words import amount, beyond, bound, state, verdict_line, worst_first

_MARKDOWN = re.compile(r"([\\`*_{}\[\]#!~|])")


def summary(report: GateReport) -> str:
    """Return ``report`` as Markdown: the verdict, what needs attention, and everything else folded away."""
    ordered = worst_first(report)
    attention = [one for one in ordered if one.fails or one.verdict is not GateVerdict.PASS or one.advice]
    rest = [one for one in ordered if one not in attention]
    parts = [f"## {'✅' if report.passed else '❌'} {_plain(verdict_line(report))}", ""]
    if attention:
        parts += [*_table(attention), ""]
    if rest:
        parts += [
            f"<details><summary>{len(rest)} findings that passed</summary>",
            "",
            *_table(rest),
            "",
            "</details>",
            "",
        ]
    parts += [f"- {_plain(note)}" for note in report.notes]
    if report.baseline is not None:
        parts.append(f"Baseline: {_code(report.baseline)}")
    return "\n".join(parts).rstrip() + "\n"


def _table(findings: list[Finding]) -> list[str]:
    rows = ["| verdict | artifact | rule | measured | limit | by | why, and how to see it again |", "|---" * 7 + "|"]
    for one in findings:
        again = f"<br>{_code(one.command)}" if one.command else ""
        cells = (
            _plain(state(one)),
            _plain(one.subject),
            _plain(one.rule),
            _plain(amount(one.measured, one.unit)),
            _plain(bound(one)),
            _plain(beyond(one)),
            _plain(one.reason) + again,
        )
        rows.append("| " + " | ".join(cells) + " |")
    return rows


def _plain(text: str) -> str:
    """Return ``text`` so that Markdown, HTML and mentions of people make nothing of it."""
    one_line = " ".join(text.split())
    return _MARKDOWN.sub(r"\\\1", html.escape(one_line, quote=False)).replace("@", "&#64;")


def _code(text: str) -> str:
    escaped = html.escape(" ".join(text.split()), quote=False)
    return "<code>" + re.sub(r"[\\`*_\[\]|~@]", lambda found: f"&#{ord(found[0])};", escaped) + "</code>"


def workflow_commands(report: GateReport) -> tuple[str, ...]:
    """Return one workflow command for each finding that needs attention: errors, warnings, and advice as notices."""
    lines = []
    for one in worst_first(report):
        if one.fails:
            level = "error"
        elif one.advice:
            level = "notice"
        elif one.verdict is GateVerdict.PASS:
            continue
        else:
            level = "warning"
        figures = f"{amount(one.measured, one.unit)}, {bound(one)}, {beyond(one)}: " if one.measured is not None else ""
        again = f" Again: {one.command}" if one.command else ""
        title = _property(f"deploykit gate: {one.rule}, {one.subject}")
        lines.append(f"::{level} title={title}::{_message(f'{figures}{one.reason}.{again}')}")
    return tuple(lines)


def _message(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _message(text).replace(":", "%3A").replace(",", "%2C")

"""The release note: the verdict, the table of files and how each of them is called, in Markdown."""

from __future__ import annotations

import html
import re

from deploykit.report_page.records import Standing
from deploykit.report_page.rows import Cell, Content

_MARKDOWN = re.compile(r"([\\`*_{}\[\]#!~|])")
_WORDS = {Standing.PASS: "PASS", Standing.OPEN: "OPEN", Standing.FAIL: "FAIL"}


def release_note(content: Content) -> str:
    """Return ``content`` in short; nothing in a name becomes Markdown, HTML or the mention of a person."""
    verdict = content.verdict
    parts = [f"# {_plain(content.title)}", "", f"**{_WORDS[verdict.standing]}.** {_plain(verdict.sentence)}", ""]
    for reason in verdict.reasons:
        parts.append(f"- {_WORDS[reason.standing]}: {_plain(reason.text)}" + _again(reason.command))
    # The sentence of a pass has them.
    notes = verdict.notes if verdict.standing is not Standing.PASS else ()
    parts += [f"- {_plain(note)}" for note in notes]
    parts += [""] if verdict.reasons else []
    parts += ["| file | size | latency | mIoU | against the checkpoint | verified | gate |", "|---" * 7 + "|"]
    for row in content.files:
        cells = (row.size, row.latency, row.miou, row.difference, row.verified, row.gate)
        parts.append(f"| {_plain(row.name)} | " + " | ".join(map(_cell, cells)) + " |")
    parts.append("")
    devices = list(dict.fromkeys(one.device for one in content.latencies))
    if devices:
        parts.append(f"Latency: median of single runs on {_plain('; '.join(devices))}, with its 95 % interval.")
    if content.data:
        parts.append(f"mIoU: of portrait and background, on {_plain('; '.join(content.data))}.")
    parts += [_plain(text) for text in content.merged]
    for call in content.calls:
        parts += ["", f"## {_plain(call.name)}: {_plain(call.runtime)}", ""]
        parts += [f"- {_plain(sentence)}" for sentence in call.sentences]
        if call.code:
            parts += ["", *_fenced(call.code, call.language.lower())]
    for one in content.left_out[:1]:
        parts += ["", f"Left out: {len(content.left_out)}, such as {_plain(one.path)}: {_plain(one.reason)}."]
    return "\n".join(parts).rstrip() + "\n"


def _cell(cell: Cell) -> str:
    return _plain(cell.text) + (f" ({_plain(cell.detail)})" if cell.detail else "")


def _again(command: str) -> str:
    return f": {_code(command)}" if command else ""


def _plain(text: str) -> str:
    one_line = " ".join(text.split())
    return _MARKDOWN.sub(r"\\\1", html.escape(one_line, quote=False)).replace("@", "&#64;")


def _code(text: str) -> str:
    escaped = html.escape(" ".join(text.split()), quote=False)
    return "<code>" + re.sub(r"[\\`*_\[\]|~@]", lambda found: f"&#{ord(found[0])};", escaped) + "</code>"


def _fenced(code: str, language: str) -> list[str]:
    longest = max((len(found) for found in re.findall(r"`+", code)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}{language}", code.rstrip("\n"), fence]

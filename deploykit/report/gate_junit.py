"""A gate's findings as JUnit XML, which test reports of CI systems read."""

from __future__ import annotations

import re
from collections import Counter
from xml.etree import ElementTree

from deploykit.gate_records import Finding, GateReport, GateVerdict
from deploykit.report.gate_words import amount, beyond, bound, verdict_line

# What XML 1.0 cannot hold, however it is written.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(report: GateReport) -> bytes:
    """Return the JUnit XML of ``report``: an artifact is a class, a finding a test case of its own name."""
    failed = sum(one.fails for one in report.findings)
    skipped = sum(_is_skipped(one) for one in report.findings)
    counts = {"tests": str(len(report.findings)), "failures": str(failed), "skipped": str(skipped), "errors": "0"}
    root = ElementTree.Element("testsuites", {"name": "deploykit gate", **counts})
    suite = ElementTree.SubElement(root, "testsuite", {"name": "deploykit gate", **counts})
    seen: Counter[tuple[str, str]] = Counter()
    for one in report.findings:
        seen[one.subject, one.rule] += 1
        times = seen[one.subject, one.rule]
        name = one.rule if times == 1 else f"{one.rule} ({times})"
        case = ElementTree.SubElement(suite, "testcase", {"classname": _clean(one.subject), "name": _clean(name)})
        if one.fails:
            attributes = {"message": _clean(one.reason), "type": one.verdict.value}
            ElementTree.SubElement(case, "failure", attributes).text = _clean(_text(one))
        elif _is_skipped(one):
            ElementTree.SubElement(case, "skipped", {"message": _clean(one.reason)})
        else:
            ElementTree.SubElement(case, "system-out").text = _clean(_text(one))
    ElementTree.SubElement(suite, "system-out").text = _clean("\n".join((verdict_line(report), *report.notes)))
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _is_skipped(finding: Finding) -> bool:
    return finding.verdict is GateVerdict.SKIPPED and not finding.fails


def _text(finding: Finding) -> str:
    rows = (
        ("verdict", finding.verdict.value),
        ("measured", amount(finding.measured, finding.unit)),
        ("limit", bound(finding)),
        ("by", beyond(finding)),
        ("reason", finding.reason),
        ("again", finding.command),
    )
    return "\n".join(f"{name}: {value}" for name, value in rows if value)


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)

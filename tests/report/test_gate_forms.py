"""A gate's findings as JUnit XML, Markdown, annotations and JSON, with texts that try to break each of them."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from pydantic import TypeAdapter

from deploykit.gate.policy import decided
from deploykit.gate_records import Finding, GateReport, GateVerdict, Inconclusive
from deploykit.records import versioned
from deploykit.report.gate_junit import junit
from deploykit.report.gate_schema import KIND, gate_schema
from deploykit.report.gate_summary import summary, workflow_commands
from deploykit.report.gate_words import amount, beyond, bound, verdict_line, worst_first

HOSTILE = 'a|b</details>&"\x00\x1b[31m\ud800 ]]> `x` *y* @everyone\n::error::owned %0A <script>'
PASSED = Finding("bytes", "small onnx", GateVerdict.PASS, "fits", 10, 20, "bytes", -10, "deploykit inspect a")
FAILED = Finding("transposes growth", "small onnx", GateVerdict.FAIL, HOSTILE, 3, 2, "transposes", 1, "x 'a|b'")
SKIPPED = Finding("macs", "small onnx", GateVerdict.SKIPPED, "nothing says", limit=5, unit="multiply-accumulates")
OPEN = Finding("latency growth", "small onnx", GateVerdict.INCONCLUSIVE, "noise", 1.04, 1.05, "times the baseline")
ADVICE = Finding("neural engine", "small coreml", GateVerdict.PASS, "gather: CPU", advice=True)
ALL = (PASSED, OPEN, ADVICE, SKIPPED, FAILED)


def report(*findings: Finding, strict: bool = False) -> GateReport:
    return decided(findings, strict=strict, inconclusive=Inconclusive.WARN, baseline="b.json", notes=("a note",))


def test_junit_counts_what_it_holds_and_keeps_every_text_in_its_place() -> None:
    root = ElementTree.fromstring(junit(report(*ALL)))
    (suite,) = root
    assert root.attrib == suite.attrib
    assert {key: suite.get(key) for key in ("tests", "failures", "skipped", "errors")} == {
        "tests": "5",
        "failures": "1",
        "skipped": "1",
        "errors": "0",
    }
    cases = suite.findall("testcase")
    assert len(cases) == 5
    (failure,) = suite.iter("failure")
    assert failure.get("type") == "fail"
    assert "</details>" in (failure.get("message") or "")
    assert "\N{REPLACEMENT CHARACTER}" in (failure.get("message") or "")
    assert "measured: 3 transposes\nlimit: at most 2 transposes\nby: 1 transposes too much" in (failure.text or "")
    assert len(list(suite.iter("skipped"))) == 1


def test_junit_has_skipped_as_a_failure_under_strict() -> None:
    root = ElementTree.fromstring(junit(report(SKIPPED, strict=True)))
    assert [one.get("type") for one in root.iter("failure")] == ["skipped"]
    assert not list(root.iter("skipped"))


def test_junit_names_findings_of_one_rule_apart() -> None:
    root = ElementTree.fromstring(junit(report(PASSED, PASSED)))
    assert [one.get("name") for one in root.iter("testcase")] == ["bytes", "bytes (2)"]


def test_markdown_keeps_its_tables_whole() -> None:
    text = summary(report(*ALL))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    for row in rows:
        assert row.replace("\\|", "").count("|") == 8
    assert len(rows) == 4 + 5
    assert text.startswith("## ❌ The gate failed: 2 passed, 1 failed, 1 inconclusive, 1 skipped")
    assert "<script>" not in text
    assert "@everyone" not in text
    assert text.count("</details>") == 1
    assert text.index("transposes growth") < text.index("latency growth") < text.index("<details>")
    assert "Baseline: <code>b.json</code>" in text
    assert "- a note" in text
    assert summary(report(PASSED)).startswith("## ✅ The gate passed: 1 passed")


def test_annotations_are_one_line_each_and_nobody_else_can_write_one() -> None:
    lines = workflow_commands(report(*ALL))
    assert [line.split(" ")[0] for line in lines] == ["::error", "::warning", "::warning", "::notice"]
    for line in lines:
        assert "\n" not in line
        assert line.startswith("::")
    assert "%0A::error%3A%3Aowned" not in lines[0]
    assert "title=deploykit gate%3A transposes growth%2C small onnx::3 transposes" in lines[0]
    assert "%250A" in lines[0]
    assert workflow_commands(report(PASSED)) == ()


def test_words_say_the_side_of_a_limit_and_the_unit() -> None:
    agreement = Finding("equivalence", "a", GateVerdict.FAIL, "", 0.998, 0.999, "mask_agreement (at least)", 0.001)
    assert bound(agreement) == "at least 0.999 mask_agreement"
    assert beyond(agreement) == "0.001 mask_agreement too little"
    assert amount(0.01234, "s") == "12.340 ms"
    assert amount(1234567, "bytes") == "1,234,567 bytes"
    assert amount(-0.00001, "points") == "0.000 points"
    assert amount(None, "bytes") == bound(OPEN.__class__("r", "a", GateVerdict.PASS, "")) == "-"
    assert "strict" in verdict_line(report(PASSED, strict=True))
    assert worst_first(report(*ALL))[0].rule == FAILED.rule


def keys(schema: dict, name: str) -> set[str]:
    return set(schema["$defs"][name]["properties"])


def test_the_printed_record_has_the_keys_of_the_published_schema() -> None:
    schema = gate_schema()
    record = json.loads(json.dumps(versioned(KIND, report(PASSED, OPEN)), allow_nan=False))
    assert set(record) == set(schema["properties"]) == set(schema["required"])
    assert record["kind"] == schema["properties"]["kind"]["const"]
    assert record["deploykit"] == schema["properties"]["deploykit"]["const"]
    assert set(record["body"]) == keys(schema, "GateReport")
    assert all(set(one) == keys(schema, "Finding") for one in record["body"]["findings"])
    assert not schema["$defs"]["Finding"]["additionalProperties"]
    assert set(schema["$defs"]["GateVerdict"]["enum"]) == set(GateVerdict)
    assert TypeAdapter(GateReport).validate_python(record["body"]) == report(PASSED, OPEN)


def test_the_published_schema_is_that_of_the_code() -> None:
    published = Path(__file__).parents[2] / "docs" / "gate.schema.json"
    assert json.loads(published.read_text("utf-8")) == gate_schema()


@pytest.mark.parametrize("verdict", list(GateVerdict))
def test_every_verdict_has_its_form(verdict: GateVerdict) -> None:
    one = report(Finding("bytes", "a", verdict, "because"))
    assert ElementTree.fromstring(junit(one)) is not None
    assert "because" in summary(one)

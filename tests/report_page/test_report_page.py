"""The page is one file that loads nothing, escapes everything, and says what is missing."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from report_cases import change_a_byte, rewrite

from deploykit.errors import ImageError, UsageError
from deploykit.report_page import Standing, write_report
from deploykit.report_page.records import Left

EVIL = '"><script>alert(1)</script><img src=x onerror=alert(2)>'
VOID = {"meta", "link", "br", "img", "input", "hr", "path", "circle", "rect"}


class Page(HTMLParser):
    """The elements of a page with their attributes; a tag that is not closed is an error."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: dict[str, str] = {}
        self._open: list[str] = []
        self.feed(path.read_text("utf-8"))
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] in ("style", "script"):
            self.texts[self._open[-1]] = self.texts.get(self._open[-1], "") + data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [found for name, found in self.elements if name == tag]


@pytest.fixture(scope="module")
def page(written, tmp_path_factory) -> Page:
    path = tmp_path_factory.mktemp("page") / "report.html"
    summary = write_report(written, path, recipes=[written.parent / "chain.toml"])
    assert summary.standing is Standing.PASS
    assert summary.size_bytes == path.stat().st_size < 200_000
    assert summary.notes == ()
    return Page(path)


def test_nothing_is_loaded_from_anywhere(page):
    for tag, found in page.elements:
        for key in ("src", "href", "srcset", "action", "data", "poster"):
            if key in found and tag != "form":
                assert found[key].startswith(("data:image/", "#")), (tag, found[key])
        assert not [key for key in found if key.startswith("on") or key == "style"], (tag, found)
    assert "url(" not in page.texts["style"]
    assert not re.search(r"fetch|XMLHttp|import|eval|innerHTML", page.texts["script"])


def test_the_policy_allows_the_script_and_style_inside_and_nothing_else(page):
    (policy,) = [one["content"] for one in page.all("meta") if one.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    for name in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256(page.texts[name].encode()).digest()).decode()
        assert rules[f"{name}-src"] == f"'sha256-{digest}'"
    assert "unsafe" not in policy


def test_a_screen_reader_finds_names_for_everything(page):
    ids = [found["id"] for _, found in page.elements if "id" in found]
    assert len(ids) == len(set(ids))
    for tag, found in page.elements:
        for key in ("aria-labelledby", "aria-describedby"):
            assert set(found.get(key, "").split()) <= set(ids), (tag, found)
        if tag == "a":
            assert found["href"][1:] in ids
        if tag == "img":
            assert found["alt"].strip()
            assert int(found["width"]) > 0
        if tag == "th":
            assert found["scope"] in ("col", "row")
        if tag == "svg":
            assert found["role"] == "img"
    assert len(page.all("table")) == len(page.all("caption"))
    assert [tag for tag, _ in page.elements].count("h1") == 1
    assert page.all("html") == [{"lang": "en"}]


def test_it_shows_photo_mask_and_difference_of_each_image(page):
    alts = [one["alt"] for one in page.all("img")]
    assert len(alts) == 8
    assert sum("no pixel differs" in alt for alt in alts) == 2
    assert sum(alt.startswith("Photo: drawn portrait") for alt in alts) == 2


def test_the_same_folder_gives_the_same_bytes(written, tmp_path):
    for name in ("a.html", "b.html"):
        write_report(written, tmp_path / name, pictures=False, markdown=tmp_path / f"{name}.md")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert (tmp_path / "a.html.md").read_bytes() == (tmp_path / "b.html.md").read_bytes()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.html", "a.html.md", "b.html", "b.html.md"]


def test_hostile_names_stay_text(folder, tmp_path):
    records = folder / "chain" / "records"
    (records / "<img src=x onerror=alert(3)>.json").write_text("{}", "utf-8")
    measured = json.loads((records / "bench.json").read_text("utf-8"))["body"]["measured"]
    measured[0].update(device=EVIL, runtime=EVIL, notes=[EVIL])
    rewrite(records / "bench.json", measured=measured, skipped=[{"artifact": EVIL, "reason": EVIL}])
    rewrite(records / "evaluate.json", data=EVIL)
    summary = write_report(folder, tmp_path / "r.html", pictures=False, markdown=tmp_path / "r.md")
    found = Page(tmp_path / "r.html")
    assert len(found.all("script")) == 1
    assert found.all("img") == []
    assert [one.why for one in summary.left_out] == [Left.FOREIGN]
    markdown = (tmp_path / "r.md").read_text("utf-8")
    assert "<script" not in markdown
    assert "<img" not in markdown


def test_the_release_note_has_the_verdict_the_table_and_the_call(written, tmp_path):
    write_report(written, tmp_path / "r.html", markdown=tmp_path / "r.md", pictures=False)
    text = (tmp_path / "r.md").read_text("utf-8")
    assert text.startswith("# chain\n\n**PASS.** Ready: 1 file agrees")
    (row,) = [line for line in text.splitlines() if line.startswith("| chain onnx fp32")]
    assert row.count(" | ") == 6
    assert "not measured" not in row
    assert "```kotlin" in text


def test_a_changed_file_is_a_verdict_in_the_page(folder, tmp_path):
    change_a_byte(folder)
    summary = write_report(folder, tmp_path / "r.html", recipes=[tmp_path / "chain.toml"])
    assert summary.standing is Standing.FAIL
    text = (tmp_path / "r.html").read_text("utf-8")
    assert "<title>FAIL: chain" in text
    assert "it was not run" in text


def test_without_the_checkpoint_the_first_file_is_the_reference_and_that_is_said(folder, tmp_path):
    summary = write_report(folder, tmp_path / "r.html")
    assert "No recipe chain is at hand" in " ".join(summary.notes)
    assert "since the checkpoint is not at hand" in (tmp_path / "r.html").read_text("utf-8")


@pytest.mark.parametrize("name", ["nothing/r.html", ""])
def test_an_output_that_cannot_be_written_is_said_before_anything_is_run(written, tmp_path, name):
    with pytest.raises(UsageError, match="cannot be written"):
        write_report(written, tmp_path / name)


def test_images_that_are_none_are_the_users_error(written, tmp_path):
    with pytest.raises(ImageError):
        write_report(written, tmp_path / "r.html", images=tmp_path)
    assert not (tmp_path / "r.html").exists()

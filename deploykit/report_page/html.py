"""The page: one file of HTML with its style and script inside, which a strict policy lets load nothing else."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup

from deploykit.report_page import words
from deploykit.report_page.charts import PANEL_BOTTOM, PANEL_HEIGHT, PANEL_LEFT, PANEL_TOP, PANEL_WIDTH, WIDTH
from deploykit.report_page.rows import Content
from deploykit.version import __version__

_TEMPLATES = ("page.html", "macros.html")


def page(content: Content) -> str:
    """Return ``content`` as HTML; every text in it is escaped, and scripts and styles are allowed by their hash."""
    environment = Environment(
        loader=DictLoader({name: _read(name) for name in _TEMPLATES}),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        size=words.size, short=words.short_hash, small=words.scientific, percent=words.percent, points=words.points
    )
    style, script = _read("page.css"), _read("page.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    geometry = {
        "width": WIDTH,
        "panel_width": PANEL_WIDTH,
        "panel_height": PANEL_HEIGHT,
        "panel_left": PANEL_LEFT,
        "panel_top": PANEL_TOP,
        "panel_bottom": PANEL_BOTTOM,
    }
    return environment.get_template("page.html").render(
        content=content,
        policy=policy,
        # Files of this package, not of a record.
        style=Markup(style),
        script=Markup(script),
        g=geometry,
        version=__version__,
    )


def _read(name: str) -> str:
    return (resources.files("deploykit.report_page") / "templates" / name).read_text("utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

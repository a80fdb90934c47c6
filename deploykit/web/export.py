"""The page with its files as a folder that any static host serves."""

from __future__ import annotations

import shutil
from pathlib import Path

from deploykit.artifact import require_writable, staged
from deploykit.errors import UsageError
from deploykit.web.page import ENTER
from deploykit.web.plan import PagePlan
from deploykit.web.server import web_folder


def export_page(plan: PagePlan, folder: Path) -> int:
    """Write the page of ``plan`` into the new ``folder``; return its size in bytes.

    Raises:
        UsageError: the folder exists and is not empty, or the runtimes of the page are missing.
        ArtifactError: it cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            "The folder of the page is not empty.",
            where=str(folder),
            found="a file" if not folder.is_dir() else "other files",
            expected="a new or empty folder",
            next_step="name another with --export, or remove it",
        )
    require_writable(folder)
    size = 0
    with staged(folder) as new:
        for name, content in web_folder(plan).items():
            # Nobody enters a static page with a token.
            if name in (ENTER, "assets/enter.js"):
                continue
            path = new / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Path):
                shutil.copyfile(content, path)
            else:
                path.write_bytes(content)
            size += path.stat().st_size
    return size

"""``python -m deploykit``: the command line, where its script is not on the path."""

from __future__ import annotations

from deploykit.cli.main import main

main()

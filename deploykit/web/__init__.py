"""Exported files in a browser, here or on a phone: the page, who may see it, and what it measured as records.

The page's own source is in ``web/`` beside the package; ``page/`` holds what was built from it, and ``runtimes/`` the
WebAssembly runtimes, which the wheel has and a checkout fetches with ``make web``.
"""

from __future__ import annotations

import importlib.util

from deploykit.errors import UsageError

PACKAGES = ("aiohttp", "cryptography", "segno")
INSTALL = "pip install 'deploykit[web]'"


def missing_packages() -> tuple[str, ...]:
    """Return the packages of the server that are not installed."""
    return tuple(name for name in PACKAGES if importlib.util.find_spec(name) is None)


def require_packages() -> None:
    """Raise UsageError where a package of the server is not installed."""
    missing = missing_packages()
    if missing:
        raise UsageError(
            "The page cannot be served.",
            found=f"not installed: {', '.join(missing)}",
            expected=", ".join(PACKAGES),
            next_step=INSTALL,
        )

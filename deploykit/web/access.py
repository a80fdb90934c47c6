"""Who may see the page: one device that shows the token of the address once, and is known by a cookie from then on."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

COOKIE = "__Host-deploykit"
_TOKEN_BYTES = 24

# Scripts of our own and WebAssembly, nothing from elsewhere, nothing sent elsewhere, no frame around it.
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; style-src 'self'; "
        "img-src 'self' blob: data:; media-src 'self' blob:; connect-src 'self'; form-action 'none'; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Door:
    """Lets in the first device that shows ``token``, and it alone; everybody where ``token`` is empty."""

    def __init__(self, token: str = "") -> None:
        self._token = token
        self._session = ""

    @property
    def open_to_all(self) -> bool:
        """Whether no token is needed: the page is served to this machine alone."""
        return not self._token

    def enter(self, token: str) -> str | None:
        """Return the cookie for the first device with the right token; None for a wrong one, or a second device."""
        right = secrets.compare_digest(token.encode(), self._token.encode())
        if not self._token or not right or self._session:
            return None
        self._session = secrets.token_urlsafe(_TOKEN_BYTES)
        return self._session

    def knows(self, cookie: str | None) -> bool:
        """Return whether a request with ``cookie`` may see the page."""
        if self.open_to_all:
            return True
        return bool(self._session and cookie) and secrets.compare_digest(
            (cookie or "").encode(), self._session.encode()
        )


def new_token() -> str:
    """Return a token that nobody guesses."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


def allowed_hosts(address: str, port: int) -> frozenset[str]:
    """Return the names by which a browser may ask for ``address``: another one is a name that was pointed at us."""
    names = {address, "localhost"} if address == "127.0.0.1" else {address}
    return frozenset(f"[{name}]:{port}" if ":" in name else f"{name}:{port}" for name in names)

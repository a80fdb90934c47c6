"""Pictures in a browser tab of this computer: a page and a motion JPEG, on the loopback interface alone.

The address holds a random token, so that no other program or page that runs here can look; a request with another name
in its ``Host`` header, as after DNS rebinding, is refused.
"""

from __future__ import annotations

import secrets
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Condition, Semaphore, Thread
from typing import Any

import cv2

from deploykit.errors import UsageError
from deploykit.images.preprocess import Pixels

ADDRESS = "127.0.0.1"
_BOUNDARY = "frame"
_QUALITY = 85
# Tabs that watch at the same time; each takes a thread.
_MOST_VIEWERS = 8
# How often a tab whose picture does not change gets it again: that shows whether it is still there.
_AGAIN_S = 1.0
_TIMEOUT_S = 20.0
_POLL_S = 0.1
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>deploykit preview</title>
<link rel="icon" href="data:,">
<style>
:root { color-scheme: light dark; }
body { margin: 0; font: 16px system-ui, sans-serif; display: grid; min-height: 100vh; place-items: center; }
main { padding: 1rem; text-align: center; }
img { max-width: 100%; max-height: 85vh; height: auto; }
</style>
</head>
<body>
<main>
<img src="stream" alt="Live picture of deploykit preview">
<p>Stop it with Ctrl-C in the terminal. Nothing leaves this computer.</p>
</main>
</body>
</html>
"""
_SAFE_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Stream:
    """A server that shows the last published picture; ``address`` is what a browser opens."""

    def __init__(self, port: int = 0) -> None:
        self._token = secrets.token_urlsafe(24)
        self._changed = Condition()
        self._picture: bytes | None = None
        self._number = 0
        self._places = Semaphore(_MOST_VIEWERS)
        self._closed = False
        self._latest: Pixels | None = None
        try:
            self._server = ThreadingHTTPServer((ADDRESS, port), self._handler())
        except OSError as error:
            raise UsageError(
                "The preview cannot be shown on this port.",
                where="--port",
                found=f"{port}: {error.strerror or error}",
                expected="a free port of this computer, or 0 for any",
            ) from error
        self._server.daemon_threads = True
        self._thread = Thread(target=self._server.serve_forever, args=(_POLL_S,), name="deploykit-stream", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self._server.server_address[1])

    @property
    def address(self) -> str:
        """The address of the page, token included."""
        return f"http://{ADDRESS}:{self.port}/{self._token}/"

    def publish(self, pixels: Pixels) -> None:
        """Show ``pixels`` (H, W, 3) in RGB to everybody who watches; encoded only where somebody does."""
        with self._changed:
            self._latest = pixels
            self._picture = None
            self._number += 1
            self._changed.notify_all()

    def close(self) -> None:
        """Let every tab go and stop listening."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _encoded(self) -> bytes:
        """Return the last picture as a JPEG, made once for all who watch. Called with the lock held."""
        if self._picture is None and self._latest is not None:
            bgr = cv2.cvtColor(self._latest, cv2.COLOR_RGB2BGR)
            self._picture = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()
        return self._picture or b""

    def _next(self, seen: int) -> tuple[int, bytes] | None:
        """Return a newer picture than number ``seen``, or the same one after a while; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._number > max(seen, 0), timeout=_AGAIN_S)
            return None if self._closed else (self._number, self._encoded())

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        stream = self

        class Handler(BaseHTTPRequestHandler):
            timeout = _TIMEOUT_S
            server_version, sys_version = "deploykit", ""

            def do_GET(self) -> None:
                hosts = {f"{name}:{stream.port}" for name in (ADDRESS, "localhost")}
                if self.headers.get("Host") not in hosts:
                    self.send_error(HTTPStatus.FORBIDDEN, "another host was asked for")
                    return
                token, _, name = self.path.removeprefix("/").partition("/")
                if not secrets.compare_digest(token.encode("utf-8", "replace"), stream._token.encode()):
                    self.send_error(HTTPStatus.FORBIDDEN, "the token is missing or wrong")
                elif name == "":
                    self._page()
                elif name == "stream":
                    self._stream()
                else:
                    self.send_error(HTTPStatus.NOT_FOUND)

            def end_headers(self) -> None:
                for header, value in _SAFE_HEADERS.items():
                    self.send_header(header, value)
                super().end_headers()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                """Say nothing: the terminal shows the preview's own progress."""

            def _page(self) -> None:
                content = _PAGE.encode()
                self.send_response(HTTPStatus.OK)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def _stream(self) -> None:
                if not stream._places.acquire(blocking=False):
                    self.send_error(HTTPStatus.SERVICE_UNAVAILABLE, "too many tabs watch already")
                    return
                try:
                    self.send_response(HTTPStatus.OK)
                    self.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={_BOUNDARY}")
                    self.end_headers()
                    self._pictures()
                except OSError:
                    # The tab was closed.
                    self.close_connection = True
                finally:
                    stream._places.release()

            def _pictures(self) -> None:
                seen = 0
                while (found := stream._next(seen)) is not None:
                    seen, picture = found
                    if not picture:
                        continue
                    head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
                    self.wfile.write(head.encode() + picture + b"\r\n")

        return Handler

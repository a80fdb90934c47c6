"""The server of the page: what the plan names and nothing else, to whom the door lets in, results checked and kept."""

from __future__ import annotations

import errno
import json
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from pydantic import ValidationError

from deploykit.errors import UsageError
from deploykit.web.access import COOKIE, HEADERS, Door, allowed_hosts
from deploykit.web.certificate import Certificate
from deploykit.web.events import MOST_BYTES, Batch, Token
from deploykit.web.page import ENTER, INDEX, OPEN_TO_ALL, content_type, page_files, runtime_files
from deploykit.web.plan import Content, PagePlan
from deploykit.web.runs import RefusedError, Runs

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_SHUTDOWN_S = 2.0
_LOG = logging.getLogger(__name__)


def _is_ours(record: logging.LogRecord) -> bool:
    """Return whether ``record`` is about this program: what strangers send that is no HTTP is answered, not told."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


_LOG.addFilter(_is_ours)


@dataclass(frozen=True)
class Place:
    """Where the server listens: an address of this machine, and a port, 0 for a free one."""

    address: str = "127.0.0.1"
    port: int = 0


@dataclass(frozen=True)
class Serving:
    """A server that runs: ``url`` ends with a slash."""

    url: str
    runs: Runs


def web_folder(plan: PagePlan) -> dict[str, Content]:
    """Return path → content of all that there is to see, of the runtimes what the files of ``plan`` need.

    Raises UsageError where the runtimes are missing.
    """
    needed = runtime_files({one.target for one in plan.subjects}, plan.body["accelerators"], plan.body["threads"])
    body = json.dumps(plan.body, indent=1, sort_keys=True, allow_nan=False).encode()
    return {**page_files(needed), **plan.files, "plan.json": body}


@asynccontextmanager
async def serving(
    plan: PagePlan, place: Place, door: Door, certificate: Certificate | None = None
) -> AsyncIterator[Serving]:
    """Serve ``plan`` at ``place`` for as long as the context lasts, with TLS where there is a ``certificate``.

    Raises UsageError where the runtimes are missing, or nobody can listen there.
    """
    listening = _listen(place)
    port = int(listening.getsockname()[1])
    scheme = "http" if certificate is None else "https"
    host = f"[{place.address}]" if ":" in place.address else place.address
    site = _Site(plan, door, f"{scheme}://", allowed_hosts(place.address, port), place.address)
    runner = web.AppRunner(site.application(), access_log=None, logger=_LOG, shutdown_timeout=_SHUTDOWN_S)
    await runner.setup()
    try:
        await web.SockSite(runner, listening, ssl_context=certificate.context() if certificate else None).start()
        yield Serving(f"{scheme}://{host}:{port}/", site.runs)
    finally:
        await runner.cleanup()


def _listen(place: Place) -> socket.socket:
    family = socket.AF_INET6 if ":" in place.address else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((place.address, place.port))
    except (OSError, OverflowError) as error:
        listening.close()
        foreign = getattr(error, "errno", None) == errno.EADDRNOTAVAIL
        raise UsageError(
            "The page cannot be served there.",
            where=f"--address {place.address}" if foreign else f"{place.address}, --port {place.port}",
            found=getattr(error, "strerror", None) or str(error),
            expected="an address of this machine" if foreign else "a free port from 1024 to 65535",
            next_step=f"leave out {'--address' if foreign else '--port'}, or name another",
        ) from error
    return listening


class _Site:
    def __init__(self, plan: PagePlan, door: Door, scheme: str, hosts: frozenset[str], address: str) -> None:
        self._files = web_folder(plan)
        self._door = door
        self._hosts = hosts
        self._address = address
        self._origins = {scheme + host for host in hosts}
        self.runs = Runs(plan, plan.body["protocol"]["precision_target"])

    def application(self) -> web.Application:
        made = web.Application(client_max_size=MOST_BYTES, middlewares=[self._guarded])
        made.router.add_get("/", self._index)
        made.router.add_post("/enter", self._enter)
        made.router.add_post("/runs", self._begin)
        made.router.add_post("/runs/{run}", self._hear)
        made.router.add_get("/{path:.+}", self._file)
        return made

    @web.middleware
    async def _guarded(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Answer a request that names this server, comes from its page and may see it; headers go with every answer."""
        try:
            if request.host not in self._hosts:
                response: web.StreamResponse = _refusal(421, "this server has another name")
            elif request.method == "POST" and not self._from_the_page(request):
                response = _refusal(403, "results come from the page alone")
            elif not (self._is_open(request) or self._door.knows(request.cookies.get(COOKIE))):
                response = _refusal(403, "the address with its token is needed")
            else:
                response = await handler(request)
        except web.HTTPException as error:
            response = _refusal(error.status, error.reason)
        response.headers.update(HEADERS)
        response.headers.setdefault("Cache-Control", "no-store")
        return response

    def _from_the_page(self, request: web.Request) -> bool:
        return request.headers.get("Origin") in self._origins and request.content_type == "application/json"

    def _is_open(self, request: web.Request) -> bool:
        return request.path in ("/", "/enter") or request.path.removeprefix("/") in OPEN_TO_ALL

    async def _index(self, request: web.Request) -> web.StreamResponse:
        known = self._door.knows(request.cookies.get(COOKIE))
        return _answer(INDEX, self._files[INDEX]) if known else _answer(ENTER, self._files[ENTER], status=401)

    async def _file(self, request: web.Request) -> web.StreamResponse:
        # A name in a table and no path: there is nothing to climb out of.
        path = request.match_info["path"]
        if path not in self._files:
            return _refusal(404, "there is no such file")
        return _answer(path, self._files[path])

    async def _enter(self, request: web.Request) -> web.StreamResponse:
        try:
            shown = Token.model_validate_json(await request.read())
        except ValidationError:
            return _refusal(400, "no token")
        session = self._door.enter(shown.token)
        if session is None:
            return _refusal(403, "the token is wrong or was used")
        response = web.json_response({})
        response.set_cookie(COOKIE, session, path="/", secure=True, httponly=True, samesite="Strict")
        return response

    async def _begin(self, request: web.Request) -> web.StreamResponse:
        try:
            # Who comes from the address that is listened on is on this machine.
            return web.json_response({"run": self.runs.begin(here=request.remote == self._address)})
        except RefusedError as error:
            return _refusal(429, str(error))

    async def _hear(self, request: web.Request) -> web.StreamResponse:
        try:
            self.runs.hear(request.match_info["run"], Batch.model_validate_json(await request.read()))
        except ValidationError as error:
            return _refusal(400, f"not what a page sends: {_first(error)}")
        except RefusedError as error:
            return _refusal(409, str(error))
        return web.json_response({})


def _first(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return f"{'.'.join(str(part) for part in found['loc'])}: {found['msg']}"[:300]


def _answer(name: str, content: Content, *, status: int = 200) -> web.StreamResponse:
    headers = {"Content-Type": content_type(name)}
    if isinstance(content, Path):
        # Revalidated each time: a runtime of many megabytes is sent once, and never an old one shown.
        return web.FileResponse(content, status=status, headers={**headers, "Cache-Control": "no-cache"})
    return web.Response(body=content, status=status, headers=headers)


def _refusal(status: int, reason: str) -> web.Response:
    return web.Response(status=status, text=reason + "\n")

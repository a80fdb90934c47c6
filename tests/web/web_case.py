"""A served page for tests that need no browser: its runtimes are a stand-in file, so that no Node.js is needed."""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from deploykit.latency.measure import Protocol
from deploykit.latency.subjects import Subject
from deploykit.vocab import Target
from deploykit.web.access import Door
from deploykit.web.certificate import Certificate
from deploykit.web.plan import PLAN_VERSION, REQUIRED_AGREEMENT, PagePlan
from deploykit.web.server import Place, Serving, serving

ADDRESS = "127.0.0.1"
NAME = "small.tflite"
T = TypeVar("T")


def small_plan(precision_target: float | None = 0.02) -> PagePlan:
    """A plan of one file that no runtime is asked to open."""
    body = {
        "version": PLAN_VERSION,
        "reports": True,
        "protocol": {**Protocol().limits(), "precision_target": precision_target},
        "threads": [1, 2],
        "accelerators": ["wasm"],
        "required_agreement": REQUIRED_AGREEMENT,
        "subjects": [],
    }
    subject = Subject(NAME, Path(NAME), Target.TFLITE, 4, None)
    return PagePlan((subject,), (), body, {"files/0.tflite": b"TFL3"})


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Client:
    """One device: it sends exactly the path that it is told, and keeps no cookies of its own accord."""

    server: Serving
    trusted: Certificate | None = None

    @property
    def origin(self) -> str:
        return self.server.url.rstrip("/")

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        where = urlsplit(self.server.url)
        assert where.hostname is not None
        if self.trusted is None:
            connection = http.client.HTTPConnection(where.hostname, where.port, timeout=60)
        else:
            context = ssl.create_default_context(cadata=self.trusted.certificate.decode())
            connection = http.client.HTTPSConnection(where.hostname, where.port, timeout=60, context=context)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, **headers)

    def post(self, path: str, body: Any, **headers: str) -> Answer:
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.ask("POST", path, sent, **{"Origin": self.origin, "Content_Type": "application/json", **headers})


def with_server(
    act: Callable[[Client], T], *, token: str = "", certificate: Certificate | None = None, plan: PagePlan | None = None
) -> T:
    """Return what ``act`` returns while the page is served."""

    async def run() -> T:
        async with serving(plan or small_plan(), Place(ADDRESS), Door(token), certificate) as server:
            return await asyncio.to_thread(act, Client(server, certificate))

    return asyncio.run(run())


FACTS = {
    "browser": "Chromium 156.0",
    "system": "Linux",
    "architecture": "x86-64",
    "model": "",
    "cores": 2,
    "memory_gb": 8,
    "gpu": "",
    "isolated": True,
    "user_agent": "a test",
}
ABOUT = {"subject": NAME, "accelerator": "wasm", "threads": 1}
HELLO = {"event": "hello", "time_s": 1000.0, "facts": FACTS}
OPENED = {
    "event": "opened",
    **ABOUT,
    "runtime": "LiteRT.js 2.5 (WebAssembly)",
    "ran": "wasm",
    "notes": [],
    "process_s": 0.5,
    "cold_load_s": 0.25,
    "first_inference_s": 0.02,
    "warm_load_s": 0.125,
}
CHECKED = {"event": "checked", **ABOUT, "agreement": 1.0, "own_agreement": 0.9995, "levels": 1.0}
WARM = {"event": "warm", **ABOUT, "runs": 40, "seconds": 0.5, "stable": True, "repeats": 1, "granularity_s": 5e-6}
STOPPED = {"event": "stopped", **ABOUT}
END = {"event": "end", "complete": True, "ended": ""}


def samples(*values: float, start_s: float = 1001.0) -> dict[str, Any]:
    """One block of samples."""
    starts = [start_s + index * 0.01 for index in range(len(values))]
    return {"event": "samples", **ABOUT, "starts_s": starts, "samples_s": list(values)}

"""The server gives what the plan names to whom it knows, and keeps nothing that a page would not send."""

from __future__ import annotations

import json
import platform
from http.cookies import SimpleCookie

import pytest
from web_case import ABOUT, CHECKED, END, FACTS, HELLO, OPENED, WARM, Answer, Client, samples, small_plan, with_server

from deploykit.errors import UsageError
from deploykit.latency.machine import cpu_model
from deploykit.web import page
from deploykit.web.access import COOKIE
from deploykit.web.certificate import make_certificate
from deploykit.web.events import MOST_BYTES
from deploykit.web.server import Place, web_folder

TOKEN = "a token of this test"
pytestmark = pytest.mark.usefixtures("runtimes")


def test_the_page_its_runtimes_and_its_files_are_served_isolated_from_other_origins() -> None:
    def look(client: Client) -> list[Answer]:
        paths = (
            "/",
            "/assets/page.js",
            "/runtimes/litert/litert_wasm_internal.wasm",
            "/files/0.tflite",
            "/plan.json",
            "/nothing",
        )
        return [client.get(path) for path in paths]

    index, script, wasm, file, plan, nothing = with_server(look)
    assert [one.status for one in (index, script, wasm, file, plan, nothing)] == [200] * 5 + [404]
    assert b"Start benchmark" in index.body
    assert wasm.headers["Content-Type"] == "application/wasm"
    assert script.headers["Content-Type"].startswith("text/javascript")
    assert file.body == b"TFL3"
    assert json.loads(plan.body)["threads"] == [1, 2]
    for one in (index, script, wasm, file, plan, nothing):
        assert one.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert one.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
        assert one.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        policy = one.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "'wasm-unsafe-eval'" in policy
        assert "'unsafe-eval'" not in policy
        assert "'unsafe-inline'" not in policy
        assert "Set-Cookie" not in one.headers


def test_nothing_beside_the_table_of_files_is_reached_by_any_spelling() -> None:
    spellings = (
        "/../pyproject.toml",
        "/files/../../../pyproject.toml",
        "/files/%2e%2e/%2e%2e/pyproject.toml",
        "/files/..%2f..%2fpyproject.toml",
        "/files/..%5c..%5cpyproject.toml",
        "//etc/passwd",
        "/%2fetc%2fpasswd",
        "/runtimes/../server.py",
        "/assets/",
        "/files",
        "/files/0.tflite%00.html",
        "/plan.json/",
    )
    found = with_server(lambda client: {path: client.get(path).status for path in spellings})
    assert set(found.values()) <= {400, 403, 404}, found


def test_another_name_for_this_server_is_refused() -> None:
    def look(client: Client) -> list[int]:
        port = client.server.url.rpartition(":")[2].rstrip("/")
        hosts = ("evil.example", f"evil.example:{port}", "127.0.0.1", f"localhost:{port}")
        return [client.get("/plan.json", Host=host).status for host in hosts]

    assert with_server(look) == [421, 421, 421, 200]


def test_results_are_taken_from_the_page_alone() -> None:
    def look(client: Client) -> list[int]:
        return [
            client.ask("POST", "/runs", b"{}", Content_Type="application/json").status,
            client.post("/runs", {}, Origin="https://evil.example").status,
            client.post("/runs", {}, Origin="null").status,
            client.post("/runs", {}, Content_Type="text/plain").status,
            client.ask("PUT", "/runs", b"{}", Origin=client.origin).status,
            client.post("/runs", {}).status,
        ]

    assert with_server(look) == [403, 403, 403, 403, 405, 200]


def cookie_of(answer: Answer) -> str:
    return SimpleCookie(answer.headers["Set-Cookie"])[COOKIE].value


def test_one_device_is_let_in_by_the_token_and_stays_in_by_its_cookie() -> None:
    certificate = make_certificate("127.0.0.1")

    def look(client: Client) -> None:
        assert client.server.url.startswith("https://127.0.0.1:")
        assert client.get("/").status == 401
        assert b"enter.js" in client.get("/").body
        assert client.get("/assets/enter.js").status == 200
        for path in ("/plan.json", "/files/0.tflite", "/assets/page.js", "/index.html", "/runtimes/packages.json"):
            assert client.get(path).status == 403
        assert client.post("/runs", {}).status == 403
        for wrong in ({"token": "another"}, {"token": ""}, {}, {"token": TOKEN, "more": 1}, [TOKEN]):
            refused = client.post("/enter", wrong)
            assert refused.status in (400, 403)
            assert "Set-Cookie" not in refused.headers
        entered = client.post("/enter", {"token": TOKEN})
        assert entered.status == 200
        said = entered.headers["Set-Cookie"]
        assert {"HttpOnly", "Secure", "SameSite=Strict", "Path=/"} <= set(said.split("; "))
        cookie = f"{COOKIE}={cookie_of(entered)}"
        # A reload works, and so does the page.
        for _ in range(2):
            assert b"Start benchmark" in client.get("/", Cookie=cookie).body
        assert client.get("/files/0.tflite", Cookie=cookie).body == b"TFL3"
        assert client.post("/runs", {}, Cookie=cookie).status == 200
        # A second device has the token, and not the cookie.
        assert client.post("/enter", {"token": TOKEN}).status == 403
        assert client.get("/plan.json", Cookie=f"{COOKIE}=guessed").status == 403
        assert client.get("/plan.json", Cookie=f"{COOKIE}=").status == 403

    with_server(look, token=TOKEN, certificate=certificate)


def test_what_a_page_would_not_send_is_refused_and_the_server_goes_on() -> None:
    good = {"events": [HELLO, OPENED, CHECKED, WARM, samples(0.01, 0.02)]}
    bad: dict[str, object] = {
        "no JSON": b"{",
        "NaN": json.dumps({"events": [samples(float("nan"))]}).encode(),
        "a text for a number": {"events": [samples("0.01")]},  # type: ignore[arg-type]
        "a negative time": {"events": [samples(-0.01)]},
        "an unknown event": {"events": [{"event": "exec", "code": "1"}]},
        "an unknown key": {"events": [{**HELLO, "path": "/etc"}]},
        "nothing": {"events": []},
        "starts without samples": {"events": [{**samples(0.01), "starts_s": [1.0, 2.0]}]},
        "deep": b'{"events": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        "too many": {"events": [HELLO] * 1000},
    }

    def look(client: Client) -> dict[str, int]:
        run = json.loads(client.post("/runs", {}).body)["run"]
        found = {name: client.post(f"/runs/{run}", body).status for name, body in bad.items()}
        found["too large"] = client.post(f"/runs/{run}", b" " * (MOST_BYTES + 1)).status
        found["another file"] = client.post(f"/runs/{run}", {"events": [{**CHECKED, "subject": "other"}]}).status
        found["not checked"] = client.post(f"/runs/{run}", {"events": [samples(0.01)]}).status
        found["no such run"] = client.post("/runs/7", good).status
        assert client.post(f"/runs/{run}", good).status == 200
        (kept,) = client.server.runs.all()
        assert kept.benchmark().measured[0].samples_s == (0.01, 0.02)
        assert client.post(f"/runs/{run}", {"events": [END]}).status == 200
        found["after its end"] = client.post(f"/runs/{run}", good).status
        return found

    found = with_server(look)
    assert found == {
        **dict.fromkeys(bad, 400),
        "too large": 413,
        "another file": 409,
        "not checked": 409,
        "no such run": 409,
        "after its end": 409,
    }


def test_a_file_whose_mask_is_wrong_gets_no_times() -> None:
    wrong = {**CHECKED, "agreement": 0.998}
    problem = {"event": "problem", **ABOUT, "phase": "check", "message": "only 99.80 % of the mask's pixels"}

    def look(client: Client) -> None:
        run = json.loads(client.post("/runs", {}).body)["run"]
        assert client.post(f"/runs/{run}", {"events": [HELLO, OPENED, wrong, WARM]}).status == 200
        assert client.post(f"/runs/{run}", {"events": [samples(0.01)]}).status == 409
        assert client.post(f"/runs/{run}", {"events": [problem, END]}).status == 200
        (kept,) = client.server.runs.all()
        assert not kept.benchmark().measured
        assert "only 99.80 %" in kept.benchmark().skipped[0].reason

    with_server(look)


def test_runs_are_bounded_and_the_page_is_told_what_to_do() -> None:
    answers = with_server(lambda client: [client.post("/runs", {}) for _ in range(101)])
    assert [one.status for one in answers[-2:]] == [200, 429]
    assert answers[-1].body.startswith(b"100 benchmarks were begun")
    assert b"start it again" in answers[-1].body


def test_a_page_of_this_machine_has_one_name_whoever_serves_it() -> None:
    def named(system: str, remote_is_here: bool) -> str:
        def look(client: Client) -> str:
            run = json.loads(client.post("/runs", {}).body)["run"]
            hello = {**HELLO, "facts": {**FACTS, "system": system}}
            assert client.post(f"/runs/{run}", {"events": [hello]}).status == 200
            (kept,) = client.server.runs.all()
            kept.here &= remote_is_here
            machine = kept.benchmark().machine
            assert machine is not None
            return machine.processor

        return with_server(look)

    own = {"Linux": "Linux", "Darwin": "macOS 15.0", "Windows": "Windows 10"}[platform.system()]
    assert named(own, True) == cpu_model()
    # A phone on a cable comes from the same address, and another device from another one.
    assert named("Android 15", True) == named(own, False) == "a processor that the browser does not name"


def test_a_checkout_without_the_runtimes_says_what_fetches_them(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(page, "RUNTIMES", tmp_path / "none")
    with pytest.raises(UsageError, match="make web") as caught:
        web_folder(small_plan())
    assert "wheel" in str(caught.value)


def test_a_port_that_is_taken_is_one_clear_error() -> None:
    def again(client: Client) -> None:
        port = int(client.server.url.rpartition(":")[2].rstrip("/"))
        from deploykit.web.server import _listen

        with pytest.raises(UsageError, match="cannot be served") as caught:
            _listen(Place("127.0.0.1", port))
        assert "--port" in str(caught.value)
        # Of documentation alone: no machine has it.
        with pytest.raises(UsageError, match="cannot be served") as caught:
            _listen(Place("192.0.2.1", 0))
        assert "--address" in str(caught.value)
        assert "--port" not in str(caught.value)

    with_server(again)

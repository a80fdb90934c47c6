"""The browser's view of a preview, asked for by a plain HTTP client."""

from __future__ import annotations

import http.client
import threading
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
from video_files import moving_frames

from deploykit.errors import UsageError
from deploykit.preview.stream import Stream


@pytest.fixture
def stream():
    opened = Stream()
    yield opened
    opened.close()


def ask(stream, path, *, method="GET", host=None):
    connection = http.client.HTTPConnection("127.0.0.1", stream.port, timeout=60)
    connection.request(method, path, headers={} if host is None else {"Host": host})
    return connection.getresponse()


def page(stream):
    return urlsplit(stream.address).path


def next_picture(response):
    """Return the next JPEG of a motion JPEG, decoded."""
    assert response.readline().strip() == b"--frame"
    assert response.readline() == b"Content-Type: image/jpeg\r\n"
    length = int(response.readline().split(b":")[1])
    assert response.readline() == b"\r\n"
    encoded = response.read(length)
    assert response.readline() == b"\r\n"
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def test_the_page_shows_the_stream_and_nothing_from_elsewhere(stream):
    response = ask(stream, page(stream))
    text = response.read().decode()
    assert response.status == 200
    assert '<img src="stream" alt="Live picture' in text
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert response.headers["Referrer-Policy"] == "no-referrer"
    assert response.headers["Cache-Control"] == "no-store"
    assert "http" not in text


def test_pictures_arrive_one_after_the_other(stream):
    first, second = moving_frames(2)
    stream.publish(first)
    response = ask(stream, page(stream) + "stream")
    assert response.headers["Content-Type"] == "multipart/x-mixed-replace; boundary=frame"
    assert np.abs(next_picture(response).astype(int) - first).mean() < 6
    stream.publish(second)
    shown = next_picture(response)
    assert np.abs(shown.astype(int) - second).mean() < 6
    assert np.abs(shown.astype(int) - first).mean() > 6
    # The same picture again shows that the tab is still there.
    assert np.array_equal(next_picture(response), shown)


def test_without_the_token_nothing_is_shown(stream):
    right = page(stream)
    for path in ("/", "/stream", "/x" + right[1:], right[:-2] + "/", right.swapcase() + "stream"):
        assert ask(stream, path).status == 403, path
    assert ask(stream, right + "../etc/passwd").status == 404
    assert ask(stream, right + "other").status == 404
    assert ask(stream, right, method="POST").status == 501
    assert ask(stream, right).status == 200


def test_another_host_is_refused(stream):
    right = page(stream)
    for host in ("example.org", f"example.org:{stream.port}", "127.0.0.1", f"127.0.0.1:{stream.port + 1}", ""):
        assert ask(stream, right, host=host).status == 403, host
    assert ask(stream, right, host=f"localhost:{stream.port}").status == 200


def test_it_listens_on_the_loopback_interface_with_a_token_of_its_own(stream):
    other = Stream()
    try:
        assert stream.address.startswith("http://127.0.0.1:")
        assert stream._server.server_address[0] == "127.0.0.1"
        assert page(other) != page(stream)
        assert len(page(stream)) >= 34
    finally:
        other.close()


def test_a_port_that_is_taken_is_refused(stream):
    with pytest.raises(UsageError, match="cannot be shown on this port"):
        Stream(stream.port)


def test_too_many_tabs_are_sent_away_and_places_are_free_again(stream):
    stream.publish(moving_frames(1)[0])
    watching = [ask(stream, page(stream) + "stream") for _ in range(8)]
    assert [one.status for one in watching] == [200] * 8
    assert ask(stream, page(stream) + "stream").status == 503
    for one in watching:
        one.close()
    for _ in range(1000):
        if ask(stream, page(stream) + "stream").status == 200:
            return
        threading.Event().wait(0.05)
    pytest.fail("no place is free again")


def test_closing_ends_every_stream():
    stream = Stream()
    stream.publish(moving_frames(1)[0])
    response = ask(stream, page(stream) + "stream")
    next_picture(response)
    stream.close()
    assert response.read() == b""
    with pytest.raises(OSError, match=r"."):
        ask(stream, page(stream))

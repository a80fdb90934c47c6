"""``deploykit preview --show`` in a process of its own: a plain HTTP client watches, Ctrl-C ends it."""

from __future__ import annotations

import http.client
import re
import signal
import subprocess
import sys
from urllib.parse import urlsplit

import pytest
from video_files import moving_frames, read_video, write_video


@pytest.fixture
def started(small_onnx, here):
    """Return a function that starts the command, and what it was asked for before; whatever still runs is ended."""
    processes = []

    def start(*arguments):
        command = [sys.executable, "-m", "deploykit", "preview", str(small_onnx), *arguments]
        process = subprocess.Popen(command, cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def line_with(process, what):
    """Return the first line on stderr that holds ``what``."""
    said = []
    for line in process.stderr:
        said.append(line)
        if what in line:
            return line
    return pytest.fail("".join(said))


def watched(address, count):
    """Return the lengths of ``count`` pictures of the stream at ``address``."""
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
    connection.request("GET", address.path + "stream")
    response = connection.getresponse()
    assert response.status == 200
    lengths = []
    while len(lengths) < count:
        line = response.readline()
        assert line, "the stream ended"
        if line.startswith(b"Content-Length:"):
            lengths.append(int(line.split(b":")[1]))
            assert response.readline() == b"\r\n"
            assert response.read(lengths[-1])[:2] == b"\xff\xd8"
    connection.close()
    return lengths


def test_it_is_shown_until_ctrl_c_and_the_video_is_kept(started, here):
    write_video(here / "long.mp4", moving_frames(600, 48, 64, step=1))
    process = started("--input", "long.mp4", "--output", "out.mp4", "--show", "--no-open", "--background", "blur")
    address = urlsplit(re.search(r"http://\S+", line_with(process, "preview: http"))[0])
    assert address.hostname == "127.0.0.1"
    assert len(watched(address, 3)) == 3
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    frames, _ = read_video(here / "out.mp4")
    assert f"{len(frames)} frames: out.mp4" in out
    assert not [path for path in here.iterdir() if path.name.startswith(".")]


@pytest.mark.full
def test_the_last_picture_stays_until_ctrl_c(started, here):
    write_video(here / "short.mp4", moving_frames(3, 48, 64))
    process = started("--input", "short.mp4", "--show", "--no-open", "--json")
    address = urlsplit(re.search(r"http://\S+", line_with(process, "preview: http"))[0])
    line_with(process, "last frame")
    assert len(watched(address, 1)) == 1
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    assert '"output": null' in out
    assert not (here / "preview.mp4").exists()

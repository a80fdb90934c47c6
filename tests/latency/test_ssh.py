"""The ssh driver for real: the system's ssh against an OpenSSH server on the loopback address."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from agent_cases import QUICK
from bench_cases import write_onnx
from ssh_case import SSHD, Server, client_on_path, here, python_script

from deploykit.errors import DeviceError
from deploykit.latency.drivers import remote, ssh
from deploykit.latency.drivers.options import DeviceOptions
from deploykit.latency.drivers.ssh import measure_over_ssh
from deploykit.latency.measure import Protocol
from deploykit.latency.subjects import Subject
from deploykit.latency_records import Benchmark, Stopped
from deploykit.vocab import Target

pytestmark = [
    pytest.mark.skipif(SSHD is None, reason="needs OpenSSH's sshd: sudo apt install openssh-server"),
    pytest.mark.skipif(shutil.which("ssh") is None, reason="needs the ssh client"),
]
# Long enough that something can happen in its middle.
LONG = replace(QUICK, min_runs=10**6, min_seconds=60.0, max_seconds=60.0)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("sshd"))
    yield server
    server.stop()


@pytest.fixture
def server(machine: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    machine.know("host")
    machine.show("user")
    client_on_path(machine, tmp_path, monkeypatch)
    return machine


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    path = write_onnx(tmp_path / "it's a $(model); rm.onnx")
    return Subject("small.onnx", path, Target.ONNX, path.stat().st_size, None)


FEEDS = {"small.onnx": [{"x": np.zeros((1, 3, 8, 8), np.float32)}]}


def measure(
    server: Server,
    subject: Subject,
    options: DeviceOptions | None = None,
    protocol: Protocol = QUICK,
    report: object = None,
) -> Benchmark:
    return measure_over_ssh(
        server.address,
        [subject],
        protocol,
        options or here(),
        feeds=FEEDS,
        report=report,  # type: ignore[arg-type]
    )


def left_behind_there(result: Benchmark) -> str:
    return "".join(one.remedy for one in result.warnings if "left on the machine" in one.problem)


def test_samples_and_facts_come_back_and_nothing_is_left(server: Server, subject: Subject, tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    bad = replace(subject, name="bad.onnx", path=tmp_path / "bad.onnx")
    package = replace(subject, name="a.mlpackage", target=Target.COREML)
    feeds = {**FEEDS, "bad.onnx": FEEDS["small.onnx"], "a.mlpackage": FEEDS["small.onnx"]}
    subjects = [subject, bad, *([package] if sys.platform != "darwin" else [])]
    result = measure_over_ssh(server.address, subjects, replace(QUICK, startup=True), here(), feeds=feeds)
    assert (result.complete, result.ended) == (True, "")
    assert not left_behind_there(result)
    assert [one.artifact for one in result.measured] == ["small.onnx"]
    latency = result.measured[0]
    assert (latency.driver, latency.accelerator) == ("ssh", "cpu")
    assert len(latency.samples_s) >= 20
    assert 0 < latency.median_s < 1
    assert latency.startup is not None
    assert latency.startup.process_s is not None
    assert result.machine is not None
    assert result.machine.processor in latency.device
    assert len(result.conditions) >= 2
    assert os.uname().nodename not in repr(result.machine)
    reasons = {one.artifact: one.reason for one in result.skipped}
    assert "protobuf" in reasons["bad.onnx"].lower()
    if sys.platform != "darwin":
        assert reasons["a.mlpackage"] == "Core ML needs macOS"
    assert server.left_behind() == []


@pytest.mark.full
def test_each_number_of_threads_is_a_run_of_its_own(server: Server, subject: Subject) -> None:
    result = measure(server, subject, here(threads=(1, 2)))
    assert [(one.artifact, one.threads) for one in result.measured] == [("small.onnx", 1), ("small.onnx", 2)]
    assert result.measured[1].starts_s[0] > result.measured[0].starts_s[-1]
    assert server.left_behind() == []


def test_an_unknown_host_key_is_never_accepted(server: Server, subject: Subject) -> None:
    server.know(None)
    with pytest.raises(DeviceError, match="host key of the machine is not known") as caught:
        measure(server, subject)
    assert "compare the fingerprint: ssh -p" in str(caught.value)
    assert (server.folder / "known_hosts").read_text("utf-8") == ""


def test_a_changed_host_key_is_said_to_have_changed(server: Server, subject: Subject) -> None:
    server.know("other_host")
    with pytest.raises(DeviceError, match="another host key than the one that is known") as caught:
        measure(server, subject)
    assert f"ssh-keygen -R '[127.0.0.1]:{server.port}'" in str(caught.value)


def test_a_key_that_is_refused_is_said_without_a_question(server: Server, subject: Subject) -> None:
    server.show("stranger")
    with pytest.raises(DeviceError, match="refused to let us in") as caught:
        measure(server, subject)
    assert "ssh-copy-id" in str(caught.value)


def test_a_machine_without_a_server_cannot_be_reached(server: Server, subject: Subject) -> None:
    with pytest.raises(DeviceError, match="cannot be reached"):
        measure_over_ssh("ssh://127.0.0.1:1", [subject], QUICK, here(), feeds=FEEDS)


def test_a_python_without_the_runtime_comes_with_the_command_that_adds_it(
    server: Server, subject: Subject, tmp_path: Path
) -> None:
    bare = DeviceOptions(remote_python=bare_python(tmp_path))
    with pytest.raises(DeviceError, match="cannot run any of the files") as caught:
        measure(server, subject, bare)
    assert "-m pip install numpy onnxruntime" in str(caught.value)
    assert "--bootstrap" in str(caught.value)
    assert server.left_behind() == []


def test_no_python_there_is_an_error(server: Server, subject: Subject) -> None:
    with pytest.raises(DeviceError, match="There is no Python on the machine"):
        measure(server, subject, DeviceOptions(remote_python="/no/such; touch /tmp/python"))
    assert server.left_behind() == []


def bare_python(tmp_path: Path) -> str:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
    return str(tmp_path / "bare/bin/python")


def test_a_bootstrap_without_venv_there_says_what_it_asks_for(server: Server, subject: Subject, tmp_path: Path) -> None:
    # What Debian prints without python3-venv: https://bugs.debian.org/cgi-bin/bugreport.cgi?bug=847620
    said = "The virtual environment was not created successfully because ensurepip is not available."
    body = f'test "$2" = venv && {{ echo "{said}"; exit 1; }}'
    options = DeviceOptions(
        remote_python=python_script(tmp_path / "python", body, bare_python(tmp_path)), bootstrap=True
    )
    with pytest.raises(DeviceError, match="temporary environment cannot be made") as caught:
        measure(server, subject, options)
    assert "ensurepip is not available" in str(caught.value)
    assert server.left_behind() == []


@pytest.mark.full
def test_a_bootstrap_that_pip_refuses_leaves_nothing_behind(server: Server, subject: Subject, tmp_path: Path) -> None:
    # The environment is made, and its pip is told to look nowhere.
    bare = bare_python(tmp_path)
    body = f'test "$2" = venv && {{ {bare} "$@" && printf "[global]\\nno-index = true\\n" > "$3/pip.conf"; exit; }}'
    options = DeviceOptions(remote_python=python_script(tmp_path / "python", body, bare), bootstrap=True)
    with pytest.raises(DeviceError, match="cannot be installed on the machine"):
        measure(server, subject, options)
    assert server.left_behind() == []


@pytest.mark.full
def test_a_bootstrap_installs_what_is_missing_and_leaves_nothing_behind(
    server: Server, subject: Subject, tmp_path: Path
) -> None:
    bare = bare_python(tmp_path)
    index = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--no-deps", "-d", str(tmp_path), "numpy"], check=False
    )
    if index.returncode:
        pytest.skip("needs a package index")
    result = measure(server, subject, DeviceOptions(remote_python=bare, bootstrap=True))
    assert result.complete
    assert len(result.measured[0].samples_s) >= 20
    assert server.left_behind() == []


@pytest.mark.full
def test_a_lost_connection_keeps_what_was_measured_and_the_machine_cleans_itself_up(
    server: Server, subject: Subject
) -> None:
    def lose(message: str) -> None:
        if message.startswith("measuring"):
            for session in server.sessions():
                session.kill()

    result = measure(server, subject, protocol=LONG, report=lose)
    assert (result.complete, result.ended) == (False, ssh.LOST)
    assert result.measured[0].stopped is Stopped.INTERRUPTED
    assert len(result.measured[0].samples_s) > 0
    assert server.left_behind() == []


def test_a_connection_that_is_lost_for_good_is_cleaned_up_by_the_machine(
    server: Server, subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(message: str) -> None:
        if message.startswith("measuring"):
            server.know(None)
            for session in server.sessions():
                session.kill()

    result = measure(server, subject, protocol=LONG, report=lose)
    assert (result.complete, result.ended) == (False, ssh.LOST)
    assert result.measured[0].stopped is Stopped.INTERRUPTED
    assert len(result.measured[0].samples_s) > 0
    assert "remove it there, if it still is: rm -rf" in left_behind_there(result)
    assert server.left_behind() == []


def test_ctrl_c_keeps_what_was_measured_and_leaves_nothing(server: Server, subject: Subject) -> None:
    def interrupt(message: str) -> None:
        if message.startswith("measuring"):
            signal.raise_signal(signal.SIGINT)

    result = measure(server, subject, protocol=LONG, report=interrupt)
    assert (result.complete, result.ended) == (False, "interrupted")
    assert len(result.measured[0].samples_s) > 0
    assert server.left_behind() == []


@pytest.mark.parametrize("moment", ["copying", pytest.param("warming up", marks=pytest.mark.full)])
def test_ctrl_c_before_anything_was_measured_leaves_nothing_either(
    server: Server, subject: Subject, moment: str
) -> None:
    def interrupt(message: str) -> None:
        if message.startswith(moment):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        measure(server, subject, report=interrupt)
    assert server.left_behind() == []


def test_an_agent_that_says_nothing_is_ended(
    server: Server, subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "PATIENCE_S", 0.5)
    silent = python_script(tmp_path / "python", 'test "$1" = agent.pyz && exec sleep 60')
    with pytest.raises(DeviceError, match="Nothing was measured") as caught:
        measure(server, subject, DeviceOptions(remote_python=silent))
    assert "said nothing for 0.5 s" in str(caught.value)
    assert server.left_behind() == []


def test_a_machine_that_does_not_answer_is_given_up(
    server: Server, subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = python_script(tmp_path / "python", 'test "$1" = - && exec sleep 60')
    find = ssh.find_python

    def impatient(*words: object) -> object:
        monkeypatch.setattr(remote.Remote.shell, "__kwdefaults__", {"stdin": b"", "timeout_s": 0.5})
        try:
            return find(*words)  # type: ignore[arg-type]
        finally:
            monkeypatch.undo()
            client_on_path(server, tmp_path, monkeypatch)

    monkeypatch.setattr(ssh, "find_python", impatient)
    with pytest.raises(DeviceError, match="gave no answer in time"):
        measure(server, subject, DeviceOptions(remote_python=silent))


def test_a_full_disk_there_is_said(server: Server, subject: Subject, tmp_path: Path) -> None:
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(server.temporary)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("a small file system cannot be mounted here: it needs root")
    try:
        with pytest.raises(DeviceError, match="No space is left on the machine") as caught:
            measure(server, subject)
        assert "TMPDIR" in str(caught.value)
        assert server.left_behind() == []
    finally:
        subprocess.run(["umount", str(server.temporary)], check=True)

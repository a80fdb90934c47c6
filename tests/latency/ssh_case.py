"""A real OpenSSH server on the loopback address, with keys and a configuration of its own, for the current user."""

from __future__ import annotations

import getpass
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from deploykit.latency.drivers.options import DeviceOptions

# Where a server that root starts wants an empty folder; the service's own unit makes it too.
PRIVILEGE_SEPARATION = Path("/run/sshd")
SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


class Server:
    """The server, and the client's view of it: what it knows, and which key it shows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.temporary = folder / "tmp of the machine"
        self.temporary.mkdir()
        self.port = _free_port()
        for name in ("host", "other_host", "user", "stranger"):
            _keygen(folder / name)
        shutil.copy(folder / "user.pub", folder / "authorized_keys")
        (folder / "sshd_config").write_text(
            f"""Port {self.port}
ListenAddress 127.0.0.1
HostKey {folder}/host
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
SetEnv TMPDIR="{self.temporary}"
""",
            "utf-8",
        )
        self.know("host")
        self.show("user")
        self.made_folder = os.geteuid() == 0 and not PRIVILEGE_SEPARATION.exists()
        if self.made_folder:
            PRIVILEGE_SEPARATION.mkdir(mode=0o755)
        assert SSHD is not None
        log = (folder / "sshd.log").open("wb")
        self.process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log)
        log.close()
        self._wait()

    @property
    def address(self) -> str:
        return f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}"

    def know(self, key: str | None) -> None:
        """Let the client know ``key`` as that of the server; None: no key at all."""
        public = (self.folder / f"{key}.pub").read_text("utf-8") if key else ""
        line = f"[127.0.0.1]:{self.port} {' '.join(public.split()[:2])}\n" if key else ""
        (self.folder / "known_hosts").write_text(line, "utf-8")

    def show(self, key: str) -> None:
        """Let the client show ``key`` to the server."""
        (self.folder / "ssh_config").write_text(
            f"Host *\n  UserKnownHostsFile {self.folder}/known_hosts\n  GlobalKnownHostsFile /dev/null\n"
            f"  IdentityFile {self.folder}/{key}\n  IdentitiesOnly yes\n  IdentityAgent none\n",
            "utf-8",
        )

    def sessions(self) -> list[psutil.Process]:
        """Return the server's own processes for the connections that are open."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in children if child.name().startswith("sshd")]

    def remote_processes(self) -> list[psutil.Process]:
        """Return what runs in the temporary folder of the machine."""
        here = str(self.temporary)
        return [one for one in psutil.process_iter(["cmdline"]) if here in " ".join(one.info["cmdline"] or ())]

    def left_behind(self) -> list[Path]:
        """Return what is left in the temporary folder of the machine, after waiting a moment for its removal."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and (list(self.temporary.iterdir()) or self.remote_processes()):
            time.sleep(0.05)
        assert self.remote_processes() == []
        return sorted(self.temporary.rglob("*"))

    def stop(self) -> None:
        for session in self.sessions():
            session.kill()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        if self.made_folder:
            PRIVILEGE_SEPARATION.rmdir()

    def _wait(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.02)
        pytest.skip(f"sshd does not start here: {(self.folder / 'sshd.log').read_text('utf-8')[-300:]}")


def client_on_path(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the real ssh on the PATH, with the test's configuration in place of the user's."""
    real = shutil.which("ssh")
    assert real is not None
    program = folder / "ssh"
    program.write_text(f'#!/bin/sh\nexec {real} -F {shlex.quote(str(server.folder / "ssh_config"))} "$@"\n', "utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def here(**entries: object) -> DeviceOptions:
    """Return options with this very Python as that of the machine."""
    return DeviceOptions(remote_python=sys.executable, **entries)  # type: ignore[arg-type]


def python_script(path: Path, body: str, python: str = sys.executable) -> str:
    """Write a program that does ``body`` and then is ``python``; return its path."""
    path.write_text(f'#!/bin/sh\n{body}\nexec {shlex.quote(python)} "$@"\n', "utf-8")
    path.chmod(0o755)
    return str(path)


def _keygen(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)], check=True)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])

"""One machine reached by the system's ``ssh``: asked, given files, cleaned up; its host key is always checked."""

from __future__ import annotations

import io
import re
import shlex
import tarfile
from collections.abc import Mapping
from pathlib import Path

from deploykit.errors import DeviceError
from deploykit.latency.drivers.programs import Ran, run
from deploykit.latency.drivers.ssh_address import Address

SSH = "ssh"
ASK_S = 60.0
COPY_S = 600.0
# Never a question, never a new host key, nothing forwarded; a dead connection is noticed within 15 seconds.
OPTIONS = (
    "BatchMode=yes",
    "StrictHostKeyChecking=yes",
    "UpdateHostKeys=no",
    "ConnectTimeout=10",
    "ServerAliveInterval=5",
    "ServerAliveCountMax=3",
    "ClearAllForwardings=yes",
    "ForwardAgent=no",
    "ForwardX11=no",
    "PermitLocalCommand=no",
    "RemoteCommand=none",
    "LogLevel=ERROR",
)
_CONNECTION_FAILED = 255
_FOLDER = re.compile(r"^deploykit-folder=(/[^\n]*/deploykit-[A-Za-z0-9]+)$", re.MULTILINE)
_FULL = re.compile(r"no space left on device|disk quota exceeded|ENOSPC|EDQUOT", re.IGNORECASE)
_UNREACHABLE = re.compile(
    r"could not resolve|connection refused|timed out|no route to host|network is unreachable|name or service not known",
    re.IGNORECASE,
)


class Remote:
    """A machine; ``folder`` is the one folder that is made there, and removed by ``clean``."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.folder = ""

    def command(self, script: str) -> list[str]:
        """Return the command line that runs ``script`` there in a POSIX shell, whatever the user's own shell is."""
        options = [word for option in OPTIONS for word in ("-o", option)]
        return [SSH, "-T", *options, *self.address.options(), f"exec sh -c {shlex.quote(script)}"]

    def shell(self, script: str, *, stdin: bytes = b"", timeout_s: float = ASK_S) -> Ran:
        """Return what ``script`` returned and wrote there.

        Raises:
            DeviceError: no connection, or it was lost.
            TimedOutError: nothing more within ``timeout_s``.
        """
        done = run(self.command(script), timeout_s=timeout_s, stdin=stdin)
        if done.returncode == _CONNECTION_FAILED:
            raise connection_error(self.address, done.stderr, done.last_line)
        return done

    def make_folder(self) -> None:
        """Make a folder there that only this user can read."""
        script = 'umask 077; d=$(mktemp -d "${TMPDIR:-/tmp}/deploykit-XXXXXXXXXX") && echo "deploykit-folder=$d"'
        done = self.shell(script)
        found = _FOLDER.search(done.stdout)
        if found is None:
            raise self.refused("No temporary folder can be made on the machine.", done)
        self.folder = found[1]

    def put(self, files: Mapping[str, Path | bytes], *, timeout_s: float = COPY_S) -> None:
        """Copy ``files``, by their names there (contents, files or whole packages), into the folder.

        Raises:
            DeviceError: no room there, no connection, or it was lost.
        """
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for name, content in files.items():
                if isinstance(content, Path):
                    archive.add(content, arcname=name, filter=_anonymous)
                else:
                    entry = tarfile.TarInfo(name)
                    entry.size, entry.mode = len(content), 0o600
                    archive.addfile(entry, io.BytesIO(content))
        done = self.shell(f"cd {self.quoted} && tar xf -", stdin=packed.getvalue(), timeout_s=timeout_s)
        if done.returncode:
            raise self.refused("The files cannot be copied to the machine.", done, needed=len(packed.getvalue()))

    @property
    def quoted(self) -> str:
        """The folder there as one word of a shell."""
        return shlex.quote(self.folder)

    def clean(self) -> str:
        """End what runs there and remove the folder; return what could not be removed, or an empty text."""
        if not self.folder:
            return ""
        script = (
            f"cd / && p=$(cat {self.quoted}/pid 2>/dev/null) && kill $p 2>/dev/null && n=0 && "
            "while kill -0 $p 2>/dev/null && [ $n -lt 50 ]; do sleep 0.1; n=$((n+1)); done\n"
            f"rm -rf {self.quoted}; test ! -e {self.quoted}"
        )
        try:
            done = self.shell(script)
        except DeviceError:
            return f"remove it there, if it still is: rm -rf {self.quoted}"
        if done.returncode:
            return f"rm -rf {self.quoted} failed there: {done.last_line}"
        self.folder = ""
        return ""

    def refused(self, message: str, done: Ran, *, needed: int | None = None) -> DeviceError:
        """Return the error for what the machine would not do, with its own last words."""
        if _FULL.search(done.text):
            line = next(line.strip() for line in done.text.splitlines() if _FULL.search(line))
            return DeviceError(
                "No space is left on the machine.",
                where=f"{self.address}:{self.folder or '$TMPDIR'}",
                found=line[:300],
                expected=f"{needed} bytes" if needed else "room for the files and the runtime",
                next_step="free some there, or point TMPDIR there to another folder (~/.ssh/environment, SetEnv)",
            )
        return DeviceError(message, where=str(self.address), found=done.last_line, expected="a POSIX system")


def connection_error(address: Address, said: str, last_line: str) -> DeviceError:
    """Return why there is no connection, from what ssh ``said``."""
    where = f"{address}" + (f", port {address.port}" if address.port else "")
    if "IDENTIFICATION HAS CHANGED" in said:
        return DeviceError(
            "The machine has another host key than the one that is known.",
            where=where,
            found="a changed key: a new installation, or somebody in between",
            expected="the key in known_hosts",
            next_step=f"ask who runs it; if the new key is right: ssh-keygen -R '{address.known_as}'",
        )
    if "Host key verification failed" in said or "host key is known for" in said:
        return DeviceError(
            "The host key of the machine is not known.",
            where=where,
            found="no entry in known_hosts",
            expected="a key that a person has checked: none is accepted unseen",
            next_step=f"connect once by hand and compare the fingerprint: {address.command()}",
        )
    if "Permission denied" in said or "authentication failures" in said:
        return DeviceError(
            "The machine refused to let us in.",
            where=where,
            found=last_line,
            expected="a key that it accepts without a password",
            next_step=f"ssh-copy-id {'-p ' + str(address.port) + ' ' if address.port else ''}{address}, or ssh-add",
        )
    if _UNREACHABLE.search(said):
        return DeviceError(
            "The machine cannot be reached.",
            where=where,
            found=last_line,
            expected="an ssh server",
            next_step=f"try: {address.command()}",
        )
    return DeviceError(
        "The connection to the machine was lost.", where=where, found=last_line, next_step=f"try: {address.command()}"
    )


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o700 if entry.isdir() else 0o600
    return entry

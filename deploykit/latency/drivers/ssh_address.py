"""Addresses of machines that are reached by ssh: read strictly, for they end up in command lines."""

from __future__ import annotations

import re
from dataclasses import dataclass

from deploykit.errors import UsageError

SCHEME = "ssh://"
_USER = r"[A-Za-z_][A-Za-z0-9._-]*"
_HOST = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?|\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9._-]+)?\]"
_ADDRESS = re.compile(rf"^{SCHEME}(?:(?P<user>{_USER})@)?(?P<host>{_HOST})(?::(?P<port>\d{{1,5}}))?/?$")


@dataclass(frozen=True)
class Address:
    """Where ssh connects to; what is None is left to the user's own ssh configuration."""

    host: str
    user: str | None = None
    port: int | None = None

    def __str__(self) -> str:
        return f"{self.user}@{self.host}" if self.user else self.host

    def options(self) -> list[str]:
        """Return the address as the last words of ssh's command line, before the remote command."""
        words = ["-p", str(self.port)] if self.port else []
        words += ["-l", self.user] if self.user else []
        return [*words, "--", self.host]

    def command(self, remote: str = "") -> str:
        """Return what a person types to connect there."""
        port = f" -p {self.port}" if self.port else ""
        return f"ssh{port} {self}{' ' if remote else ''}{remote}"

    @property
    def known_as(self) -> str:
        """The name under which ``known_hosts`` lists the machine."""
        return f"[{self.host}]:{self.port}" if self.port and self.port != 22 else self.host


def parse_address(text: str) -> Address:
    """Return the address in ``ssh://[user@]host[:port]``.

    Raises:
        UsageError: anything else, a password among it.
    """
    match = _ADDRESS.match(text)
    port = int(match["port"]) if match and match["port"] else None
    if match is None or (port is not None and not 0 < port < 65536):
        raise UsageError(
            "This is no address of a machine.",
            found="an address with a password" if re.match(r"^ssh://[^/@]*:[^/@]*@", text) else ascii(text),
            expected="ssh://user@host or ssh://user@host:port",
            next_step="passwords are never taken: let ssh use a key (ssh-copy-id user@host)",
        )
    return Address(match["host"].strip("[]"), match["user"], port)

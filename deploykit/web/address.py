"""The address at which other devices of the network reach this machine, and its code to be photographed."""

from __future__ import annotations

import io
import ipaddress
import socket

from deploykit.errors import UsageError

# For documentation alone (RFC 5737): a datagram socket that is connected to it sends nothing, and says where from.
_ELSEWHERE = ("192.0.2.1", 9)


def lan_address(wanted: str | None = None) -> str:
    """Return ``wanted`` where it is an IP address, else the one from which this machine reaches others.

    Raises UsageError where ``wanted`` is none, or the machine is in no network.
    """
    if wanted is not None:
        try:
            return str(ipaddress.ip_address(wanted))
        except ValueError as error:
            raise UsageError(
                "This is no IP address.",
                where="--address",
                found=ascii(wanted),
                expected="one of this machine, as ip address or ifconfig show it",
                next_step="leave out --address for the one from which this machine reaches its network",
            ) from error
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_ELSEWHERE)
            found = str(probe.getsockname()[0])
        except OSError:
            found = "0.0.0.0"
    if ipaddress.ip_address(found).is_unspecified:
        raise UsageError(
            "This machine is in no network that another device could share.",
            found="no route to anywhere",
            expected="a network address",
            next_step="name one of this machine with --address",
        )
    return found


def qr_text(url: str) -> str:
    """Return ``url`` as a QR code of block characters for a terminal, whatever its colours."""
    import segno

    written = io.StringIO()
    segno.make(url, error="m").terminal(written, compact=True)
    return written.getvalue()

"""Addresses are read strictly, and what ssh is asked cannot be bent by them."""

from __future__ import annotations

import pytest

from deploykit.errors import UsageError
from deploykit.latency.drivers.remote import Remote
from deploykit.latency.drivers.ssh_address import Address, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("ssh://user@host", Address("host", "user")),
        ("ssh://host", Address("host")),
        ("ssh://a.b-c_d@192.168.1.5:2222", Address("192.168.1.5", "a.b-c_d", 2222)),
        ("ssh://pi@[fe80::1%eth0]:22/", Address("fe80::1%eth0", "pi", 22)),
        ("ssh://my_board.local", Address("my_board.local")),
    ],
)
def test_addresses_are_read(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "ssh://-oProxyCommand=touch${IFS}x",
        "ssh://user@-oProxyCommand=x",
        "ssh://-l@host",
        "ssh://user@host;reboot",
        "ssh://user@host reboot",
        "ssh://user@host\nreboot",
        "ssh://user@$(reboot)",
        "ssh://us`er@host",
        "ssh://user@host:0",
        "ssh://user@host:65536",
        "ssh://user@host:-p",
        "ssh://user@host/path",
        "ssh://@host",
        "ssh://",
        "http://host",
        "ssh://user@h\u00f6st",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no address of a machine"):
        parse_address(text)


def test_a_password_is_refused_and_not_repeated() -> None:
    with pytest.raises(UsageError) as caught:
        parse_address("ssh://user:geheim@host")
    assert "geheim" not in str(caught.value)
    assert "passwords are never taken" in str(caught.value)


def test_the_command_line_asks_no_question_and_ends_its_options_before_the_host() -> None:
    words = Remote(Address("host", "user", 2222)).command("echo it's")
    assert words[-2:] == ["host", """exec sh -c 'echo it'"'"'s'"""]
    assert words[-3] == "--"
    assert {"BatchMode=yes", "StrictHostKeyChecking=yes", "UpdateHostKeys=no"} <= set(words)
    assert words[words.index("-l") + 1] == "user"
    assert words[words.index("-p") + 1] == "2222"


def test_what_a_person_types_names_user_and_port() -> None:
    assert Address("host", "user", 2222).command() == "ssh -p 2222 user@host"
    assert Address("host").command("true") == "ssh host true"
    assert Address("host", None, 22).known_as == "host"
    assert Address("host", None, 2222).known_as == "[host]:2222"

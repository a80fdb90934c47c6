"""The certificate is of one address and a day at most, and the address of the page can be photographed."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from deploykit.errors import DeviceError, UsageError
from deploykit.web import chromium
from deploykit.web.access import Door, allowed_hosts, new_token
from deploykit.web.address import lan_address, qr_text
from deploykit.web.certificate import make_certificate


def test_the_certificate_is_of_one_address_for_a_server_and_for_a_day() -> None:
    now = datetime.now(UTC)
    made = make_certificate("192.168.1.5", now=now)
    found = x509.load_pem_x509_certificate(made.certificate)
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("192.168.1.5")]
    usage = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert not found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert found.not_valid_after_utc - found.not_valid_before_utc == timedelta(days=1)
    assert found.not_valid_before_utc < now < found.not_valid_after_utc
    assert isinstance(found.public_key(), ec.EllipticCurvePublicKey)
    assert len(made.fingerprint.split(":")) == 32
    assert make_certificate("192.168.1.5").key != made.key


@pytest.mark.parametrize(("lasts_s", "hours"), [(1800.0, 1.5), (22 * 3600.0, 23), (23.5 * 3600, 23), (1e300, 23)])
def test_the_certificate_lasts_as_long_as_the_command_and_an_hour_more(lasts_s: float, hours: float) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    made = make_certificate("192.168.1.5", lasts_s, now)
    assert made.ends == now + timedelta(hours=hours)
    begins = x509.load_pem_x509_certificate(made.certificate).not_valid_before_utc
    assert begins == now - timedelta(hours=1)


def test_a_door_without_a_token_is_open_and_one_with_a_token_lets_one_in() -> None:
    assert Door().knows(None)
    assert Door().enter("") is None
    token = new_token()
    assert len(token) >= 32
    door = Door(token)
    assert not door.knows(None)
    assert not door.knows("")
    assert door.enter(token + "x") is None
    cookie = door.enter(token)
    assert cookie
    assert door.knows(cookie)
    assert not door.knows(cookie + "x")
    assert door.enter(token) is None


def test_names_of_the_server_are_its_address_and_on_this_machine_its_usual_name() -> None:
    assert allowed_hosts("127.0.0.1", 80) == {"127.0.0.1:80", "localhost:80"}
    assert allowed_hosts("10.0.0.2", 8443) == {"10.0.0.2:8443"}
    assert allowed_hosts("fd00::1", 8443) == {"[fd00::1]:8443"}


def test_an_address_is_an_ip_address() -> None:
    assert lan_address("10.1.2.3") == "10.1.2.3"
    with pytest.raises(UsageError, match="no IP address"):
        lan_address("phone.local")


def test_the_code_in_the_terminal_holds_the_address() -> None:
    lines = qr_text("https://192.168.1.5:8443/#" + "a" * 32).splitlines()
    assert len(lines) > 15
    assert qr_text("https://192.168.1.5:8443/#" + "b" * 32).splitlines() != lines


def test_no_browser_is_an_error_that_says_what_to_do(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv(chromium.VARIABLE, str(tmp_path / "none"))
    with pytest.raises(DeviceError, match="no browser on this machine") as caught:
        chromium.require_chromium()
    assert chromium.VARIABLE in str(caught.value)

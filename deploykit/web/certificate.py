"""A certificate for one run: of one address, for a day at most, by nobody but itself; its fingerprint is for people."""

from __future__ import annotations

import ipaddress
import ssl
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LONGEST = timedelta(days=1)
# Clocks of phones differ, to either side.
CLOCKS_DIFFER = timedelta(hours=1)


@dataclass(frozen=True)
class Certificate:
    """The certificate and its private key, both as PEM."""

    certificate: bytes
    key: bytes

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the certificate as browsers show it."""
        digest = x509.load_pem_x509_certificate(self.certificate).fingerprint(hashes.SHA256())
        return digest.hex(":").upper()

    @property
    def ends(self) -> datetime:
        """When it is not valid any more, in UTC."""
        return x509.load_pem_x509_certificate(self.certificate).not_valid_after_utc

    def context(self) -> ssl.SSLContext:
        """Return what a server needs to speak TLS with it, version 1.2 or later."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # The library reads files alone; the folder is of this user and gone at once.
        with tempfile.TemporaryDirectory(prefix="deploykit-web-") as folder:
            both = Path(folder) / "server.pem"
            both.touch(mode=0o600)
            both.write_bytes(self.key + self.certificate)
            context.load_cert_chain(both)
        return context


def make_certificate(address: str, lasts_s: float | None = None, now: datetime | None = None) -> Certificate:
    """Return a new certificate for the IP ``address``: P-256, serverAuth.

    It is valid for ``lasts_s`` seconds and an hour more to either side, since clocks differ; from the beginning to the
    end never longer than a day, which is what None stands for.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"deploykit web at {address}")])
    moment = now or datetime.now(UTC)
    begins = moment - CLOCKS_DIFFER
    lasts = LONGEST if lasts_s is None else timedelta(seconds=min(lasts_s, LONGEST.total_seconds()))
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(min(begins + LONGEST, moment + lasts + CLOCKS_DIFFER))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    return Certificate(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )

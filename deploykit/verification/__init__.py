"""Any exported file against the network, or another file, that it should agree with: on the machine at hand."""

from __future__ import annotations

from deploykit.verification.records import ArtifactVerification
from deploykit.verification.verify import Choices, verify

__all__ = ["ArtifactVerification", "Choices", "verify"]

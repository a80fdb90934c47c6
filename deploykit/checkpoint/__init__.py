"""Checkpoints: hashing, reading without executing anything, strict loading."""

from deploykit.checkpoint.fit import fit_state_dict, load_into
from deploykit.checkpoint.load import Checkpoint, read_checkpoint, sha256_file

__all__ = ["Checkpoint", "fit_state_dict", "load_into", "read_checkpoint", "sha256_file"]

"""Saved runs of ``bench``: one JSON record each, kept by machine, listed, and followed over time."""

"""Keep what converters print off stdout: they write to both streams, from Python and from C++."""

from __future__ import annotations

import ctypes
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def contained(verbose: bool = False) -> Iterator[None]:
    """Swallow everything printed inside, warnings and logging included; with ``verbose`` send it to stderr.

    File descriptors 1 and 2 of the whole process are redirected meanwhile, so that C++ libraries are covered.
    """
    _flush()
    level = logging.root.manager.disable
    with tempfile.TemporaryFile() as sink, warnings.catch_warnings():
        saved = os.dup(1), os.dup(2)
        try:
            os.dup2(saved[1] if verbose else sink.fileno(), 1)
            if not verbose:
                warnings.simplefilter("ignore")
                logging.disable(logging.CRITICAL)
                os.dup2(sink.fileno(), 2)
            yield
        finally:
            _flush()
            os.dup2(saved[0], 1)
            os.dup2(saved[1], 2)
            os.close(saved[0])
            os.close(saved[1])
            logging.disable(level)


def _flush() -> None:
    """Write out what Python and the C library hold back: C++ keeps its text until the buffer is full or the end."""
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name == "posix":
        ctypes.CDLL(None).fflush(None)

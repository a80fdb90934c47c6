"""Text that the C library still holds when the block ends is not let out afterwards."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SPEAK = """
import ctypes
from deploykit.chatter import contained
libc = ctypes.CDLL(None)
libc.printf(b"before\\n")
with contained(verbose={verbose}):
    libc.printf(b"from C\\n")
libc.printf(b"after\\n")
"""


@pytest.mark.skipif(os.name != "posix", reason="the C library is loaded by no name on POSIX systems alone")
@pytest.mark.parametrize(("verbose", "stderr"), [(False, ""), (True, "from C\n")])
def test_buffered_text_of_the_c_library_stays_off_stdout(verbose, stderr):
    # This variable would make the buffers of the C library go away.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    code = SPEAK.format(verbose=verbose)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "before\nafter\n"
    assert done.stderr == stderr

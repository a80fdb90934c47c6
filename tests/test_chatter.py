"""What converters print stays off stdout, wherever they print it from."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from deploykit.chatter import contained

SPEAK = """
import logging, os, subprocess, sys, warnings
from deploykit.chatter import contained
logging.basicConfig(level=logging.INFO)
print("before")
with contained(verbose={verbose}):
    print("from Python")
    print("to stderr", file=sys.stderr)
    os.write(1, b"from C\\n")
    os.write(2, b"from C to stderr\\n")
    subprocess.run([sys.executable, "-c", "print('from a child')"])
    logging.getLogger("converter").error("logged")
    warnings.warn("warned")
print("after")
logging.getLogger("own").info("heard again")
"""


def speak(verbose: bool) -> subprocess.CompletedProcess[str]:
    code = SPEAK.format(verbose=verbose)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


def test_everything_is_swallowed_and_the_streams_come_back():
    done = speak(verbose=False)
    assert done.stdout == "before\nafter\n"
    assert done.stderr == "INFO:own:heard again\n"


def test_verbose_shows_it_on_stderr():
    done = speak(verbose=True)
    assert done.stdout == "before\nafter\n"
    for text in ("from Python", "to stderr", "from C", "from C to stderr", "from a child", "logged", "warned"):
        assert text in done.stderr


def _open_files() -> int:
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.is_dir() else 0


def _fail_inside() -> None:
    with contained():
        warnings.warn("an error outside", stacklevel=1)
        raise KeyError("planted")


def test_an_error_passes_through_and_everything_is_restored():
    before, disabled, opened = os.fstat(1), logging.root.manager.disable, _open_files()
    with pytest.raises(KeyError, match="planted"):
        _fail_inside()
    after = os.fstat(1)
    assert (after.st_dev, after.st_ino) == (before.st_dev, before.st_ino)
    assert logging.root.manager.disable == disabled
    assert _open_files() == opened
    with pytest.raises(UserWarning):
        warnings.warn("an error again", stacklevel=1)


def test_it_nests(capfd):
    with contained():
        with contained(verbose=True):
            os.write(1, b"inner\n")
        os.write(1, b"outer\n")
    os.write(1, b"outside\n")
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("outside\n", "")

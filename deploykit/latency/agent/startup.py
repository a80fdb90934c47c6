"""What it takes until the first result, in a process that has done nothing else."""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import platform
import time
from pathlib import Path

from .events import NANOSECONDS, Stream
from .runtimes import Subject, prepared

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"
_KIB = 1024
# A page that another core is about to add, or to write, stays the first time.
_TIMES_ASKED = 3


def start_up(subject: Subject, stream: Stream, spawned_ns: int) -> None:
    """Measure ``subject`` from the start of this process, at ``spawned_ns`` on the clock of ``time.perf_counter_ns``.

    Opened once with the file out of the page cache where that can be had, run once, closed, and opened again.
    """
    name = subject["name"]
    opened = prepared(subject)
    stream.emit("started", subject=name, seconds=_since(spawned_ns))
    cold = evict(Path(subject["path"])) if subject.get("path") else False
    before = _resident_bytes("VmRSS")
    reset = reset_peak()
    start = time.perf_counter_ns()
    session = opened()
    stream.emit("opened", subject=name, seconds=_since(start), cold=True, cold_cache=cold)
    start = time.perf_counter_ns()
    session.run()
    stream.emit("first", subject=name, seconds=_since(start))
    peak = peak_bytes()
    if before is not None and peak is not None and (reset or peak > before):
        stream.emit("memory", subject=name, peak_bytes=max(0, peak - before))
    session.close()
    del session
    gc.collect()
    start = time.perf_counter_ns()
    session = opened()
    stream.emit("opened", subject=name, seconds=_since(start), cold=False, cold_cache=False)
    session.close()


def evict(path: Path) -> bool:
    """Ask the system to forget the pages of the files at ``path``; return whether none is left.

    It needs no rights but to read them. A file that others have mapped, or in a file system without a disk, stays.
    """
    if not hasattr(os, "posix_fadvise"):
        return False
    files = [path] if path.is_file() else [one for one in sorted(path.rglob("*")) if one.is_file()]
    evicted = [_evict_file(one) for one in files]
    return bool(evicted) and all(evicted)


def _evict_file(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(descriptor).st_size
        # Pages that are not on the disk yet cannot be forgotten.
        os.fsync(descriptor)
        # Or looking at one page would bring the next ones back.
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        return any(_forgotten(descriptor, size) for _ in range(_TIMES_ASKED))
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _forgotten(descriptor: int, size: int) -> bool:
    """Ask once, and return whether every page is gone; looking may bring those back that were."""
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    gone = not _resident(descriptor, size) or not any(_at_hand(descriptor, offset) for offset in _places(size))
    if gone:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    return gone


def _resident(descriptor: int, size: int) -> bool:
    """Return whether any page of the file is in memory; True where the system does not tell, as of others' files."""
    if not size:
        return False
    pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
    with mmap.mmap(descriptor, size, access=mmap.ACCESS_COPY) as mapped:
        first = ctypes.c_char.from_buffer(mapped)
        address = ctypes.c_void_p(ctypes.addressof(first))
        failed = ctypes.CDLL(None).mincore(address, ctypes.c_size_t(size), pages)
        del first
    return bool(failed) or any(page & 1 for page in pages)


def _places(size: int) -> list[int]:
    return sorted({0, size // 2, size - 1}) if size else []


def _at_hand(descriptor: int, offset: int) -> bool:
    """Return whether a byte can be read without waiting for the disk, or was read while this was found out."""
    if not hasattr(os, "RWF_NOWAIT"):
        return True
    try:
        return os.preadv(descriptor, [bytearray(1)], offset, os.RWF_NOWAIT) == 1
    except BlockingIOError:
        return False
    except OSError:
        return True


def peak_bytes() -> int | None:
    """Return the highest resident memory of this process, since it was reset where the system can reset it."""
    found = _resident_bytes("VmHWM")
    if found is not None:
        return found
    try:
        import resource
    except ImportError:
        return None
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if platform.system() == "Darwin" else largest * _KIB


def reset_peak() -> bool:
    """Count the highest resident memory anew from now; return whether the system does that."""
    try:
        _RESET.write_text(_RESET_PEAK)
    except OSError:
        return False
    return True


def _resident_bytes(field: str) -> int | None:
    try:
        lines = _STATUS.read_text("ascii", errors="replace").splitlines()
    except OSError:
        if platform.system() != "Darwin" or field == "VmHWM":
            return None
        return peak_bytes()
    for line in lines:
        if line.startswith(field + ":"):
            return int(line.split()[1]) * _KIB
    return None


def _since(start_ns: int) -> float:
    return (time.perf_counter_ns() - start_ns) / NANOSECONDS

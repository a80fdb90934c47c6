"""What loading costs with the file in and out of the system's cache, and the memory that a process takes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from deploykit.latency.agent import startup

ON_LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the page cache is asked on Linux")


def _on_a_disk(folder: Path) -> bool:
    kinds = {line.split()[1]: line.split()[2] for line in Path("/proc/mounts").read_text("utf-8").splitlines()}
    places = [str(one) for one in (folder, *folder.parents) if str(one) in kinds]
    return kinds[places[0]] in ("ext4", "xfs", "btrfs")


@ON_LINUX
def test_a_file_is_put_out_of_the_cache_without_rights(tmp_path: Path) -> None:
    if not _on_a_disk(tmp_path):
        pytest.skip("the temporary folder is not on a disk of which this is known")
    path = tmp_path / "package"
    path.mkdir()
    for name in ("a", "b"):
        (path / name).write_bytes(b"x" * 300_000)
        assert (path / name).read_bytes()
    assert startup.evict(path)
    assert startup.evict(path / "a")


@ON_LINUX
def test_a_file_that_stays_in_memory_is_not_said_to_be_cold(tmp_path: Path) -> None:
    memory = Path("/dev/shm")
    if not memory.is_dir():
        pytest.skip("there is no file system in memory")
    path = memory / f"deploykit-{tmp_path.name}"
    path.write_bytes(b"x" * 10_000)
    try:
        assert not startup.evict(path)
    finally:
        path.unlink()
    assert not startup.evict(tmp_path / "nothing")


@ON_LINUX
def test_the_peak_follows_what_is_taken_after_it_was_reset() -> None:
    startup.reset_peak()
    before = startup.peak_bytes()
    taken = b"x" * 60_000_000
    after = startup.peak_bytes()
    assert before is not None
    assert after is not None
    assert 50_000_000 < after - before < 90_000_000
    del taken
    # The kernel counts resident pages for each core apart, and adds them up now and then.
    assert abs(startup.peak_bytes() - after) < 5_000_000
    startup.reset_peak()
    assert startup.peak_bytes() < after - 50_000_000

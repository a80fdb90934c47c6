"""Two threads for one line of work: what comes first is made ahead of what follows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import Generic, TypeVar

Item = TypeVar("Item")
_PATIENCE_S = 0.1


@dataclass(frozen=True)
class _End:
    """The last thing in a queue; ``error`` is what ended the items early."""

    error: BaseException | None = None


class _Ahead(Generic[Item]):
    def __init__(self, items: Iterable[Item], depth: int, stopped: Callable[[], bool]) -> None:
        self._queue: Queue[Item | _End] = Queue(depth)
        self._closed = Event()
        self._stopped = stopped
        self._thread = Thread(target=self._fill, args=(items,), name="deploykit-preview", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Item]:
        while not self._stopped():
            try:
                item = self._queue.get(timeout=_PATIENCE_S)
            except Empty:
                continue
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item

    def close(self) -> None:
        self._closed.set()
        self._thread.join()

    def _fill(self, items: Iterable[Item]) -> None:
        end = _End()
        try:
            for item in items:
                if not self._put(item):
                    return
        except BaseException as error:
            end = _End(error)
        self._put(end)

    def _put(self, item: Item | _End) -> bool:
        """Return whether ``item`` found its place before this was closed."""
        while not self._closed.is_set():
            try:
                self._queue.put(item, timeout=_PATIENCE_S)
            except Full:
                continue
            return True
        return False


@contextmanager
def ahead(items: Iterable[Item], depth: int, stopped: Callable[[], bool]) -> Iterator[Iterator[Item]]:
    """Yield ``items``, made by a thread of their own that is at most ``depth`` ahead; an error comes in its turn.

    They end early once ``stopped`` returns True. At the end the thread is gone.
    """
    thread = _Ahead(items, depth, stopped)
    try:
        yield iter(thread)
    finally:
        thread.close()

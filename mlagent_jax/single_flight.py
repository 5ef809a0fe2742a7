"""Work that several threads ask for at once is done once (golang.org/x/sync/singleflight)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[str, Future[T]] = {}

    def do(self, key: str, work: Callable[[], T]) -> tuple[T, bool]:
        """What `work` returns, and whether that was another thread's work of the same key.

        Raises what `work` raises, in each of the threads.
        """
        with self._lock:
            running = self._running.get(key)
            if running is None:
                mine: Future[T] = Future()
                self._running[key] = mine
        if running is not None:
            return running.result(), True
        try:
            result = work()
        except BaseException as error:
            self._end(key)
            mine.set_exception(error)
            raise
        self._end(key)
        mine.set_result(result)
        return result, False

    def _end(self, key: str) -> None:
        with self._lock:
            del self._running[key]

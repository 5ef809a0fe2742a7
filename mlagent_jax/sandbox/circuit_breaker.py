"""Stops calling what keeps failing, and tries again after a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class CircuitBreaker:
    """Opens after `max_failures` in a row. While it is open, it lets one try through every `reset_seconds`.

    Thread-safe. `clock`: seconds of a monotonic clock.
    """

    def __init__(
        self,
        max_failures: int = 5,
        reset_seconds: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_failures = max_failures
        self._reset_seconds = reset_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._failures_in_a_row = 0
        self._next_try = 0.0

    @property
    def is_open(self) -> bool:
        return self._failures_in_a_row >= self._max_failures

    def allows_try(self) -> bool:
        """Whether to try now. A caller that is let through must report the outcome with `record`."""
        with self._lock:
            if not self.is_open:
                return True
            now = self._clock()
            if now < self._next_try:
                return False
            self._next_try = now + self._reset_seconds
            return True

    def record(self, success: bool) -> None:
        with self._lock:
            if success:
                self._failures_in_a_row = 0
                return
            self._failures_in_a_row += 1
            if self._failures_in_a_row == self._max_failures:
                self._next_try = self._clock() + self._reset_seconds

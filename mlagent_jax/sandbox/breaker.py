"""Stops asking what keeps failing, and tries again after a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class CircuitBreaker:
    """Opens after `failures` in a row; while it is open, one try every `rest_seconds` is let through.

    Thread-safe. `clock`: seconds that never go back.
    """

    def __init__(
        self, failures: int = 5, rest_seconds: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._failures = failures
        self._rest_seconds = rest_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._in_a_row = 0
        self._next_try = 0.0

    @property
    def is_open(self) -> bool:
        return self._in_a_row >= self._failures

    def allows(self) -> bool:
        """Whether to try now. A caller that is let through says with `record` what came of it."""
        with self._lock:
            if not self.is_open:
                return True
            now = self._clock()
            if now < self._next_try:
                return False
            self._next_try = now + self._rest_seconds
            return True

    def record(self, success: bool) -> None:
        with self._lock:
            if success:
                self._in_a_row = 0
                return
            self._in_a_row += 1
            if self._in_a_row == self._failures:
                self._next_try = self._clock() + self._rest_seconds

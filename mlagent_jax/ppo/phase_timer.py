"""How long each phase of an update takes."""

from __future__ import annotations

import time
from collections.abc import Mapping


class PhaseTimer:
    """Seconds by phase, under the names of the metrics: `timing_s/` and the phase."""

    def __init__(self) -> None:
        self._began = self._last = time.monotonic()
        self.seconds: dict[str, float] = {}

    def end_phase(self, phase: str) -> None:
        """The time since the phase before it ended is that of `phase`."""
        now = time.monotonic()
        self.seconds[f"timing_s/{phase}"] = now - self._last
        self._last = now

    def end_phases(self, seconds: Mapping[str, float]) -> None:
        """The same for several phases that have been timed elsewhere."""
        self.seconds |= {f"timing_s/{phase}": value for phase, value in seconds.items()}
        self._last = time.monotonic()

    @property
    def total(self) -> float:
        """Seconds since this timer was made."""
        return time.monotonic() - self._began

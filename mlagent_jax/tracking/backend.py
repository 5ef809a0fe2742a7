"""What a tracker does, and what it knows about the stage that it tracks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

PROJECT = "mlagent-jax"  # what trackers file the runs under, unless their own variables name another project

Cell = str | float | int | None


@dataclass(frozen=True)
class Stage:
    """A stage of a run. Its steps count from 1, so a tracker shows it as a run of its own.

    run: the name of the whole run, by which trackers group its stages. folder: the stage's own.
    config: the run's settings, by their full names.
    start: the step that training resumes from, 0 for a new one. logged: the newest step that earlier starts logged.
    """

    name: str
    run: str
    folder: Path
    config: Mapping[str, Any]
    start: int = 0
    logged: int = 0

    @property
    def title(self) -> str:
        return f"{self.run}/{self.name}"


class Backend(Protocol):
    """One tracker. `Tracker` opens it, and goes on without it if a call fails.

    run_id: by which a later start of the stage finds its run again.
    last_step: the newest step that the run has; only newer ones are logged.
    """

    run_id: str
    last_step: int

    def __init__(self, stage: Stage, run_id: str | None) -> None:
        """run_id: that of the run to resume; None for a new one."""
        ...

    @staticmethod
    def check() -> None:
        """Raises UserError for what would keep the tracker from working, such as a missing login."""
        ...

    def log_scalars(self, step: int, values: Mapping[str, float]) -> None:
        """values: finite numbers, by the names in METRICS.md."""
        ...

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None: ...

    def close(self, failed: bool) -> None:
        """Returns once everything is stored or sent. failed: whether the stage ended with an error."""
        ...

"""Trackio: a database in the user's cache folder or TRACKIO_DIR, or the Hugging Face Space that TRACKIO_SPACE_ID names.

trackio show --project=mlagent-jax
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout

import trackio

from mlagent_jax.tracking.backend import PROJECT, Cell, Stage


class TrackioBackend:
    def __init__(self, stage: Stage, run_id: str | None) -> None:
        # Trackio resumes by name, so the name of a new run must be one that no other run has.
        self.run_id = run_id or f"{stage.title}-{uuid.uuid4().hex[:6]}"
        with redirect_stdout(sys.stderr):
            self._run = trackio.init(
                PROJECT,
                name=self.run_id,
                group=stage.run,
                config=dict(stage.config),
                resume="allow",
                embed=False,
            )
        # Trackio stores what is logged half a second later, so after kill -9 it may have less than was logged.
        self.last_step = getattr(self._run, "_next_step", stage.logged + 1) - 1

    @staticmethod
    def check() -> None: ...

    def log_scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
        self._run.log({name: trackio.Table(columns=list(columns), data=[list(row) for row in rows])})

    def close(self, failed: bool) -> None:
        with redirect_stdout(sys.stderr):
            trackio.finish()  # this run, as only one is open at a time

"""Progress of a long loop: on a terminal a bar with the time left, otherwise a log line every few seconds."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from absl import logging
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

_SECONDS_BETWEEN_LINES = 10.0


class ProgressBar:
    """`with ProgressBar("sft", total, start) as bar: ... bar.advance("loss 1.2")`.

    start: how much an earlier, interrupted run has done. shown: False on all but the main process.
    """

    def __init__(self, name: str, total: int, start: int = 0, shown: bool = True):
        self._name, self._total, self._done, self._start = name, total, start, start
        self._shown = shown
        self._began = self._last_line = time.monotonic()
        self._bar: Progress | None = None

    def __enter__(self) -> ProgressBar:
        if self._shown and sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("[bold]{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}", markup=False),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task(self._name, total=self._total, completed=self._done, note="")
            self._bar.start()
        return self

    def advance(self, note: str = "", by: int = 1) -> None:
        """note: a short status to show, with units."""
        self._done += by
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, note=note)
            return
        now = time.monotonic()
        due = now - self._last_line >= _SECONDS_BETWEEN_LINES or self._done >= self._total
        if self._shown and due:
            self._last_line = now
            rate = (self._done - self._start) / max(now - self._began, 1e-9)
            left = (self._total - self._done) / max(rate, 1e-9)
            logging.info(
                "%s %d/%d, %.0f s, %.0f s left%s",
                self._name,
                self._done,
                self._total,
                now - self._began,
                left,
                f", {note}" if note else "",
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

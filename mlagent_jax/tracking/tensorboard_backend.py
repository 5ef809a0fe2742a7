"""TensorBoard events in the stage's folder: `tensorboard --logdir=WORKDIR`.

tensorboardX imports torch wherever that is installed, and no part of it can be imported alone. The other maintained
writer is in `tensorboard`, which brings a web server and gRPC. So torch is loaded once a stage logs, if it is there.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar, text

from mlagent_jax.run_folder import TENSORBOARD
from mlagent_jax.tracking.backend import Cell, Stage


class TensorboardBackend:
    """Writes in the calling thread: tensorboardX's SummaryWriter leaves that to another one, which `flush` does not
    wait for, so that a kill loses what was flushed.
    """

    def __init__(self, stage: Stage, run_id: str | None) -> None:
        folder = stage.folder / TENSORBOARD
        self.run_id = TENSORBOARD
        self.last_step = stage.start if run_id else 0
        resumed = folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        # Two starts may fall into one second, which is all that tells the names of their files apart.
        part = sum(1 for _ in folder.iterdir())
        self._events = EventsWriter(str(folder / "events"), filename_suffix=f".{part}")
        if resumed:
            # TensorBoard hides what was logged from this step on.
            start = SessionLog(status=SessionLog.START)
            self._write(Event(step=self.last_step + 1, session_log=start))

    @staticmethod
    def check() -> None: ...

    def log_scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._write(Event(step=step, summary=scalar(name, value)))
        self._events.flush()

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
        lines = [columns, ["---"] * len(columns), *rows]
        table = "\n".join(f"| {' | '.join(map(_shown, line))} |" for line in lines)
        self._write(Event(step=self.last_step, summary=text(name, table)))
        self._events.flush()

    def close(self, failed: bool) -> None:
        self._events.close()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self._events.write_event(event)


def _shown(cell: Cell) -> str:
    """A cell of a Markdown table."""
    text = "" if cell is None else f"{cell:.4g}" if isinstance(cell, float) else str(cell)
    return text.replace("|", "\\|").replace("\n", " ")

"""TensorBoard events in the stage's folder: `tensorboard --logdir=WORKDIR`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tensorboardX import SummaryWriter

from mlagent_jax.run_folder import TENSORBOARD
from mlagent_jax.tracking.backend import Cell, Stage


class TensorboardBackend:
    def __init__(self, stage: Stage, run_id: str | None) -> None:
        folder = stage.folder / TENSORBOARD
        self.run_id = TENSORBOARD
        self.last_step = stage.start if run_id else 0
        # TensorBoard hides what was logged from purge_step on. Older versions of tensorboardX take a string only.
        purge_step = self.last_step + 1 if folder.exists() else None
        self._events = SummaryWriter(str(folder), purge_step=purge_step)

    @staticmethod
    def check() -> None: ...

    def log_scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._events.add_scalar(name, value, step)
        self._events.flush()

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
        lines = [columns, ["---"] * len(columns), *rows]
        self._events.add_text(name, "\n".join(f"| {' | '.join(map(_shown, line))} |" for line in lines))

    def close(self, failed: bool) -> None:
        self._events.close()


def _shown(cell: Cell) -> str:
    """A cell of a Markdown table."""
    text = "" if cell is None else f"{cell:.4g}" if isinstance(cell, float) else str(cell)
    return text.replace("|", "\\|").replace("\n", " ")

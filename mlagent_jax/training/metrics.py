"""What training measured: `metrics.jsonl`, one flat JSON object a step, and TensorBoard events."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlagent_jax.jsonl import append_jsonl, drop_after


class MetricsWriter:
    """Appends to `folder/metrics.jsonl` and `folder/tensorboard/`.

    step: of the checkpoint that training goes on from; lines after it are dropped, so that nothing repeats.
    enabled: False on all but the main process, where nothing is written.
    """

    def __init__(self, folder: Path, step: int = 0, enabled: bool = True):
        self._path = folder / "metrics.jsonl"
        self._enabled = enabled
        if not enabled:
            return
        folder.mkdir(parents=True, exist_ok=True)
        drop_after(self._path, step)
        from tensorboardX import SummaryWriter

        # Older tensorboardX wants a string; purge_step hides what was logged after the restored step.
        self._events = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)

    def write(self, step: int, values: Mapping[str, float | int | str]) -> None:
        """Non-finite numbers become null: JSON has no word for them."""
        if not self._enabled:
            return
        line = {"step": step} | {name: _plain(value) for name, value in values.items()}
        append_jsonl(self._path, [line])
        for name, value in line.items():
            if name != "step" and isinstance(value, int | float):
                self._events.add_scalar(name, value, step)
        self._events.flush()

    def close(self) -> None:
        if self._enabled:
            self._events.close()


def _plain(value: Any) -> float | int | str | None:
    if isinstance(value, str | bool | int):
        return value
    number = float(value)
    return number if math.isfinite(number) else None

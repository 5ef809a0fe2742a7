"""What training measured: `metrics.jsonl`, one flat JSON object a step, and TensorBoard events."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mlagent_jax.errors import UserError
from mlagent_jax.files import write_atomically


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


def append_jsonl(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Appends records as lines, in one write."""
    text = "".join(json.dumps(record, allow_nan=False) + "\n" for record in records)
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Every whole line; a torn last one, as a kill leaves it, is passed over.

    Raises UserError, with the line's number, for anything else that is not a JSON object.
    """
    if not path.exists():
        return []
    *lines, _torn = path.read_text(encoding="utf-8").split("\n")
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict):
            raise UserError(f"{path}, line {number} is no JSON object; restore the file or delete that line")
        records.append(record)
    return records


def drop_after(path: Path, step: int) -> None:
    """Rewrites a JSON-lines file without the records whose `step` is after `step`, nor a torn last line."""
    if path.exists():
        kept = [record for record in read_jsonl(path) if record["step"] <= step]
        write_atomically(path, "".join(json.dumps(record) + "\n" for record in kept))


def _plain(value: Any) -> float | int | str | None:
    if isinstance(value, str | bool | int):
        return value
    number = float(value)
    return number if math.isfinite(number) else None

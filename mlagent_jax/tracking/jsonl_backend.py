"""A stage's own record of what it measured: `metrics.jsonl`, one flat JSON object a step, which the report reads."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mlagent_jax.files import write_atomically
from mlagent_jax.jsonl import Record, append_jsonl, drop_after, read_jsonl
from mlagent_jax.run_folder import METRICS, TABLES
from mlagent_jax.tracking.backend import Cell


class JsonlBackend:
    """Appends to `folder/metrics.jsonl`, and writes tables to `folder/tables/NAME.jsonl`, one object a row.

    step: of the checkpoint that training resumes from; later lines are dropped, so that nothing repeats.
    logged: the newest step that was there before. Raises JsonlError for a damaged file.
    """

    def __init__(self, folder: Path, step: int = 0):
        self._folder = folder
        self._path = folder / METRICS
        folder.mkdir(parents=True, exist_ok=True)
        steps = [record.get("step") for record in self.records()]
        drop_after(self._path, step)
        self.logged = max((step for step in steps if isinstance(step, int)), default=0)

    def records(self) -> Iterator[Record]:
        """The lines so far."""
        return read_jsonl(self._path, missing_ok=True)

    def log_scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers that are not finite become null: JSON has no word for them."""
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        append_jsonl(self._path, [{"step": step} | finite])

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
        lines = (json.dumps(dict(zip(columns, row, strict=True)), allow_nan=False) + "\n" for row in rows)
        write_atomically(self._folder / TABLES / f"{name}.jsonl", "".join(lines))

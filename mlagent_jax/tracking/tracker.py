"""What a stage logs to: `metrics.jsonl`, and the trackers that the run's settings choose.

`metrics.jsonl` is the record: it is always written, it is written first, and an error there ends the run. The others
follow it. One that is new to a run is sent the earlier steps from there. One that fails is closed and reported, and the
stage goes on without it; the next stage tries it again.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from absl import logging

from mlagent_jax.errors import UserError
from mlagent_jax.fields import nearest
from mlagent_jax.files import write_atomically
from mlagent_jax.parallel import distributed
from mlagent_jax.run_folder import TRACKERS_FILE
from mlagent_jax.tracking.backend import Backend, Cell, Stage
from mlagent_jax.tracking.jsonl_backend import JsonlBackend

JSONL = "jsonl"
TRACKERS = (JSONL, "tensorboard", "wandb", "mlflow", "trackio")
DEFAULT = (JSONL, "tensorboard")
# The package that each needs, and what installs it: an extra, or the project itself.
_PACKAGES = {
    "tensorboard": ("tensorboardX", "."),
    "wandb": ("wandb", "'.[wandb]'"),
    "mlflow": ("mlflow", "'.[mlflow]'"),
    "trackio": ("trackio", "'.[trackio]'"),
}


class Tracker:
    """Everything that a stage logs, from the main process only; a tracker without a record logs nothing."""

    def __init__(self, record: JsonlBackend | None = None) -> None:
        self._record = record
        self._backends: dict[str, Backend] = {}

    def log_scalars(self, step: int, values: Mapping[str, float]) -> None:
        """values: by the names in METRICS.md. Steps are logged in ascending order. Raises JsonlError."""
        if self._record is None:
            return
        self._record.log_scalars(step, values)
        for name in list(self._backends):
            self._attempt(name, partial(_send, step=step, values=values))

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
        """Replaces an earlier table of this name in the stage's folder. Raises OSError."""
        if self._record is None:
            return
        self._record.log_table(name, columns, rows)
        for backend_name in list(self._backends):
            self._attempt(backend_name, lambda backend: backend.log_table(name, columns, rows))

    def close(self, failed: bool = False) -> None:
        """failed: whether the stage ended with an error."""
        for name in list(self._backends):
            if self._attempt(name, lambda backend: backend.close(failed)):
                del self._backends[name]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(failed=error is not None)

    def _add(self, name: str, stage: Stage, run_id: str | None) -> None:
        """Opens a backend, and sends it what it has missed."""
        assert self._record is not None
        try:
            self._backends[name] = _backend_class(name)(stage, run_id)
        except Exception as error:  # a tracker may raise anything
            self._report(name, error)
            return
        for record in self._record.records():
            if not self._attempt(name, partial(_send, step=record.pop("step"), values=record)):
                return

    def _attempt(self, name: str, call: Callable[[Backend], None]) -> bool:
        """Whether the call worked; a backend whose call fails is given up."""
        try:
            call(self._backends[name])
            return True
        except Exception as error:  # a tracker may raise anything
            self._report(name, error)
        with contextlib.suppress(Exception):  # reported above; a second error would say nothing new
            self._backends.pop(name).close(failed=True)
        return False

    def _report(self, name: str, error: Exception) -> None:
        logging.warning(
            "The tracker %s failed (%s: %s). The stage goes on without it; metrics.jsonl keeps everything.",
            name,
            type(error).__name__,
            " ".join(str(error).split()),
        )

    @property
    def run_ids(self) -> dict[str, str]:
        """The ids of the runs in the backends that work, by the backends' names."""
        return {name: backend.run_id for name, backend in self._backends.items()}


@dataclass(frozen=True)
class Tracking:
    """The trackers that a run uses, and what they know about it.

    names: some of `TRACKERS`. run: the run's name; by default its folder's. config: its settings by full names.
    """

    names: tuple[str, ...] = DEFAULT
    run: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.names:
            if name not in TRACKERS:
                meant = nearest(name, TRACKERS)
                raise UserError(
                    f"there is no tracker {name!r}; "
                    + (f"did you mean {meant!r}?" if meant else f"there are {', '.join(TRACKERS)}")
                )

    def check(self) -> None:
        """Raises UserError for a tracker whose package cannot be imported, or that is not set up."""
        for name in self.names:
            if name != JSONL:
                _backend_class(name).check()

    def open(self, folder: Path, step: int = 0) -> Tracker:
        """Tracks the stage whose folder this is, which goes on from `step`; on all but the main process, does nothing.

        What an earlier start logged after `step` is dropped or, by trackers that never forget, not logged again.
        Raises JsonlError for a damaged metrics.jsonl.
        """
        if not distributed.is_main():
            return Tracker()
        record = JsonlBackend(folder, step)
        tracker = Tracker(record)
        run = self.run or folder.resolve().parent.name
        stage = Stage(folder.name, run, folder, self.config, start=step, logged=record.logged)
        path = folder / TRACKERS_FILE
        known = _read_run_ids(path)
        for name in self.names:
            if name != JSONL:
                tracker._add(name, stage, known.get(name))
        if tracker.run_ids:
            write_atomically(path, json.dumps(known | tracker.run_ids) + "\n")
        return tracker


def _read_run_ids(path: Path) -> dict[str, str]:
    """The ids of the stage's runs in trackers; none, with a warning, if the file is damaged."""
    try:
        run_ids = json.loads(path.read_text())
        if isinstance(run_ids, dict) and all(isinstance(run_id, str) for run_id in run_ids.values()):
            return run_ids
        problem = "not an object of strings"
    except FileNotFoundError:
        return {}
    except ValueError as error:
        problem = str(error)
    logging.warning(
        "%s is damaged (%s), so the trackers begin new runs; those that it named stay as they are.",
        path,
        problem,
    )
    return {}


def _send(backend: Backend, step: int, values: Mapping[str, float | None]) -> None:
    if step > backend.last_step:
        backend.log_scalars(
            step,
            {name: value for name, value in values.items() if value is not None and math.isfinite(value)},
        )


def _backend_class(name: str) -> type[Backend]:
    """Imports the tracker's package. Raises UserError if that is missing or broken."""
    package, extra = _PACKAGES[name]
    try:
        module = importlib.import_module(f"mlagent_jax.tracking.{name}_backend")
    except Exception as error:  # what is broken, or too old for another package, may raise anything
        if isinstance(error, ModuleNotFoundError) and error.name == package:
            raise UserError(
                f"config.tracking has {name!r}, but {package} is not installed: pip install -e {extra}"
            ) from error
        raise UserError(
            f"config.tracking has {name!r}, but {package} cannot be imported ({type(error).__name__}: {error}): "
            f"repair that package, such as by pip install --force-reinstall {package}, or leave {name!r} out"
        ) from error
    backend: type[Backend] = getattr(module, f"{name.capitalize()}Backend")
    return backend

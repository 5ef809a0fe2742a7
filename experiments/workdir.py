"""A run's work directory: it belongs to one configuration, and to one process at a time."""

from __future__ import annotations

import errno
import fcntl
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from experiments.settings import Settings
from mlagent_jax.environment.snapshots import SnapshotStore
from mlagent_jax.errors import UserError
from mlagent_jax.fields import flat
from mlagent_jax.files import read_json_object, write_atomically
from mlagent_jax.run_folder import CONFIG, RunFolder
from mlagent_jax.sandbox import cache
from mlagent_jax.sandbox.cache import Freed

PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "numpy",
    "pandas",
    "scikit-learn",
    "sentencepiece",
)
_SNAPSHOT_ID = re.compile(rb"[0-9a-f]{64}")


class WorkdirError(UserError):
    """The work directory cannot be used for this run; the message says why and what to do."""


class MissingInputError(UserError):
    """A stage lacks its input; the message names it and the stage that makes it."""


class Workdir(RunFolder):
    """A run's folder, with what keeps it to one configuration and one process."""

    @classmethod
    def at(cls, path: str) -> Workdir:
        return cls(Path(path).expanduser().resolve())

    def of_seed(self, seed: int) -> Workdir:
        """The work directory of one of several runs that differ in their seed."""
        folder = self.seed(seed)
        return Workdir(folder, f"{self.name}/{folder.name}")

    def is_done(self, stage: str) -> bool:
        return self.done(stage).exists()

    def mark_done(self, stage: str, summary: Mapping[str, Any]) -> None:
        write_atomically(self.done(stage), json.dumps(dict(summary), indent=2) + "\n")

    def require(self, needed_by: str, path: Path, made_by: str) -> None:
        """Raises MissingInputError unless the stage `made_by` has finished and left `path`."""
        if not (self.is_done(made_by) and path.exists()):
            state = "is not finished" if path.exists() else "is missing"
            raise MissingInputError(
                f"stage '{needed_by}' reads {path}, which {state}: run stage '{made_by}' first, "
                f"for example with --stages={made_by},{needed_by}"
            )

    def check_usable(self) -> None:
        """Writes nothing. Raises WorkdirError if the path is not a folder, or holds something other than a run."""
        if self.root.exists() and not self.root.is_dir():
            raise WorkdirError(f"work directory {self.root} is a file: name a folder with --workdir")
        if not self.root.exists() or self.config.exists():
            return
        try:
            names = sorted(path.name for path in self.root.iterdir() if path.name != ".lock")
        except OSError as error:
            raise self._unwritable(error) from error
        # A start that was killed may have left a temporary file of the configuration.
        others = [name for name in names if not name.startswith(f".{CONFIG}.")]
        if others:
            raise WorkdirError(
                f"{self.root} is not empty and not a run's work directory (it holds {others[0]}): "
                "choose an empty or a new one with --workdir"
            )

    @contextmanager
    def claimed(self, settings: Settings) -> Iterator[None]:
        """Locks the directory and ties it to these settings.

        Raises WorkdirError if it is not writable, in use, or of another run.
        """
        self.check_usable()
        with self.locked():
            self._bind(settings)
            yield

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes out. Raises WorkdirError if the directory is not writable or in use."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock = (self.root / ".lock").open("w")
        except OSError as error:
            raise self._unwritable(error) from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise WorkdirError(
                    f"another run is using {self.root}: wait for it, or choose another with --workdir"
                ) from None
            yield

    def _unwritable(self, error: OSError) -> WorkdirError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return WorkdirError(f"the disk is full ({self.root}): free some space; the same command resumes")
        return WorkdirError(
            f"work directory {self.root} can't be written ({error.strerror}): choose another --workdir"
        )

    def _bind(self, settings: Settings) -> None:
        """Stores the settings, or compares them with those that an earlier start stored.

        Settings that define the run must be the same. Changes of others are logged and stored.
        """
        if self.config.exists():
            stored = self.check_same(settings)
            changes = _differences(flat(stored, "config"), flat(settings, "config"))
            if changes:
                logging.info(
                    "The run resumes with changed settings that affect results by no more than rounding: %s",
                    "; ".join(changes),
                )
        text = json.dumps(settings.to_config().to_dict(), indent=2) + "\n"
        # An older version may have stored fewer settings.
        if not self.config.exists() or self.config.read_text() != text:
            write_atomically(self.config, text)
        self._bind_tasks(settings.tasks.fingerprints())

    def _bind_tasks(self, fingerprints: Mapping[str, str]) -> None:
        """Stores what the tasks are, or compares it with what they were: their settings are no more than names."""
        stored = read_json_object(self.tasks, WorkdirError) if self.tasks.exists() else {}
        for name, found in fingerprints.items():
            if stored.get(name, found) != found:
                raise WorkdirError(
                    f"{self.root} was begun with another task {name!r}: its description, script, metric, limits, "
                    "m_best or data have changed; restore them, or choose another --workdir"
                )
        if stored != stored | dict(fingerprints):
            write_atomically(self.tasks, json.dumps(stored | dict(fingerprints), indent=1) + "\n")

    def check_same(self, settings: Settings) -> Settings:
        """Returns the settings of an earlier start. Raises WorkdirError if those that define the run differ."""
        stored = self.stored_settings()
        differences = _differences(stored.definition(), settings.definition())
        if differences:
            raise WorkdirError(
                f"{self.root} belongs to a run of another configuration ({'; '.join(differences)}): "
                "use the stored values, or another --workdir"
            )
        return stored

    def stored_settings(self) -> Settings:
        """Those of an earlier start. Raises WorkdirError if they are damaged or of another version."""
        try:
            tree = json.loads(self.config.read_text())
            if not isinstance(tree, dict):
                raise ValueError(f"it holds {tree!r}")
            return Settings.from_config(ConfigDict(tree))
        except ValueError as error:
            raise WorkdirError(
                f"{self.config} is damaged ({error}): restore it, or choose another --workdir"
            ) from error
        except UserError as error:
            raise WorkdirError(
                f"{self.root} belongs to a run of another version of this program ({' '.join(str(error).split())}): "
                "use that version, or another --workdir"
            ) from error

    def record_environment(self, seed: int) -> None:
        """Appends versions, git state, device and command line of this start to environment.json."""
        import jax

        starts = json.loads(self.environment.read_text())["starts"] if self.environment.exists() else []
        starts.append(
            {
                "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
                "python": platform.python_version(),
                "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
                "platform": platform.platform(),
                "devices": [str(device.device_kind) for device in jax.devices()],
                "cpus": os.cpu_count(),
                "seed": seed,
                "git": git_state(Path(__file__).parent),
            }
        )
        write_atomically(self.environment, json.dumps({"starts": starts}, indent=2) + "\n")


def collect_garbage(workdir: Workdir, quota_mb: float) -> Freed:
    """Frees the snapshots that no record of the run names, and the executions beyond the quota.

    Raises WorkdirError if it is not a work directory, or a run is using it, which may be about to name others.
    """
    if not workdir.snapshots.is_dir():
        raise WorkdirError(
            f"{workdir.root} is not a work directory with snapshots: name the --workdir of a run"
        )
    with workdir.locked():
        executions, needed = cache.collect_garbage(workdir.executions, quota_mb)
        referenced = set(referenced_snapshots(workdir.root, workdir.snapshots))
        files, size = SnapshotStore(workdir.snapshots).collect_garbage(referenced, needed, grace_seconds=0)
    return Freed(executions, files, size)


def referenced_snapshots(folder: Path, but: Path | None = None) -> Iterator[str]:
    """Everything in a folder's records that may be the id of a snapshot: rather too many than too few.

    but: a folder in it that holds no records.
    """
    for path in folder.rglob("*.json*"):
        if path.is_file() and not (but and path.is_relative_to(but)):
            with path.open("rb") as file:
                for line in file:
                    yield from (found.group().decode() for found in _SNAPSHOT_ID.finditer(line))


def git_state(folder: Path) -> dict[str, Any]:
    """The commit, and whether the tree differs from it; an empty commit outside a git checkout."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": "", "dirty": None}


def _differences(stored: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """Each field that is not the same, with its old and its new value."""
    return [
        f"{name} was {_shown(stored, name)}, now {_shown(current, name)}"
        for name in sorted(stored.keys() | current.keys())
        if _shown(stored, name) != _shown(current, name)
    ]


def _shown(values: Mapping[str, Any], name: str) -> str:
    return repr(values[name]) if name in values else "not set"

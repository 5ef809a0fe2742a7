"""A run's work directory: what it holds, and the promise that it belongs to one configuration.

config.json        the run's configuration; a run of another configuration is refused
environment.json   versions, git state, device and command line of every start
STAGE/done.json    written when a stage has finished
ideas/ collect/ snapshots/ executions.sqlite tokenizer/ sft/ ppo/ evaluate/ report.html
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlagent_jax.errors import UserError
from mlagent_jax.files import write_atomically

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


class WorkdirError(UserError):
    """The work directory can't be used for this run; the message says why and what to do."""


class MissingInputError(UserError):
    """A stage's input is not there; the message names it and the stage that makes it."""


class Workdir:
    def __init__(self, root: Path):
        self.root = root

    @classmethod
    def at(cls, path: str) -> Workdir:
        return cls(Path(path).expanduser().resolve())

    def of_seed(self, seed: int) -> Workdir:
        """The work directory of one of several runs."""
        return Workdir(self.root / f"seed_{seed}")

    @property
    def ideas(self) -> Path:
        return self.root / "ideas"

    @property
    def expert_trajectories(self) -> Path:
        return self.root / "collect" / "trajectories.jsonl"

    @property
    def snapshots(self) -> Path:
        return self.root / "snapshots"

    @property
    def executions(self) -> Path:
        return self.root / "executions.sqlite"

    @property
    def tokenizer(self) -> Path:
        return self.root / "tokenizer"

    @property
    def sft(self) -> Path:
        return self.root / "sft"

    @property
    def ppo(self) -> Path:
        return self.root / "ppo"

    @property
    def evaluation_trajectories(self) -> Path:
        return self.root / "evaluate" / "trajectories.jsonl"

    @property
    def scores(self) -> Path:
        return self.root / "evaluate" / "scores.json"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    def is_done(self, stage: str) -> bool:
        return (self.root / stage / "done.json").exists()

    def mark_done(self, stage: str, summary: Mapping[str, Any]) -> None:
        (self.root / stage).mkdir(parents=True, exist_ok=True)
        write_atomically(self.root / stage / "done.json", json.dumps(dict(summary), indent=2) + "\n")

    def require(self, needed_by: str, path: Path, made_by: str) -> None:
        """Raises MissingInputError unless the stage `made_by` has finished and left `path`."""
        if not (self.is_done(made_by) and path.exists()):
            state = "is not finished" if path.exists() else "is missing"
            raise MissingInputError(
                f"stage '{needed_by}' reads {path}, which {state}: run stage '{made_by}' first, "
                f"for example with --stages={made_by},{needed_by}"
            )

    @contextmanager
    def claimed(self, config: Mapping[str, Any]) -> Iterator[None]:
        """Holds the directory for one process. Raises WorkdirError for an unwritable or a strange one."""
        with self.locked():
            self._bind(config)
            yield

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps every other process out. Raises WorkdirError for one that is unwritable or in use."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock = (self.root / ".lock").open("w")
        except OSError as error:
            raise WorkdirError(
                f"work directory {self.root} can't be written ({error.strerror}): choose another --workdir"
            ) from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise WorkdirError(
                    f"another run is using {self.root}: wait for it, or choose another with --workdir"
                ) from None
            yield

    def _bind(self, config: Mapping[str, Any]) -> None:
        """Stores the configuration, or compares it with the one stored by an earlier start."""
        path = self.root / "config.json"
        current = json.loads(json.dumps(config))
        if path.exists():
            differences = _differences(json.loads(path.read_text()), current)
            if differences:
                listed = "; ".join(differences[:5]) + ("; ..." if len(differences) > 5 else "")
                raise WorkdirError(
                    f"{self.root} belongs to a run of another configuration ({listed}): "
                    "use the stored values, or another --workdir"
                )
            return
        strangers = sorted(p.name for p in self.root.iterdir() if p.name != ".lock")
        if strangers:
            raise WorkdirError(
                f"{self.root} is not empty and not a run's work directory (it holds {strangers[0]}): "
                "choose an empty or a new one with --workdir"
            )
        write_atomically(path, json.dumps(current, indent=2) + "\n")

    def record_environment(self, seed: int) -> None:
        """Adds this start's versions, git state, device and command line to environment.json."""
        import jax

        path = self.root / "environment.json"
        starts = json.loads(path.read_text())["starts"] if path.exists() else []
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
        write_atomically(path, json.dumps({"starts": starts}, indent=2) + "\n")


def git_state(folder: Path) -> dict[str, Any]:
    """The commit and whether the tree differs from it; an empty commit outside of a git checkout."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": "", "dirty": None}


def _differences(stored: Any, current: Any, prefix: str = "") -> list[str]:
    if isinstance(stored, dict) and isinstance(current, dict):
        found = []
        for name in sorted(stored.keys() | current.keys()):
            field = f"{prefix}.{name}" if prefix else name
            found += _differences(stored.get(name, "absent"), current.get(name, "absent"), field)
        return found
    return [] if stored == current else [f"{prefix} was {stored!r}, now {current!r}"]

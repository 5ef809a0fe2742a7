"""Which runs there are in a folder, read from their work directories each time, so that nothing can be out of date."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mlagent_jax.errors import UserError
from mlagent_jax.evaluation.flat_rows import flat_rows
from mlagent_jax.evaluation.read_run import read_json
from mlagent_jax.jsonl import Record
from mlagent_jax.llm.usage import read_usage
from mlagent_jax.run_folder import DONE, LLM, RunFolder


@dataclass(frozen=True)
class Entry:
    """A run in the list. gains: each agent's mean relative gain by split, None where a task has no valid episode.

    problem: why the run cannot be read, "" if it can.
    """

    folder: Path
    begun: str = ""
    commit: str = ""
    seed: int | None = None
    finished: tuple[str, ...] = ()
    gains: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    dollars: float = 0.0
    problem: str = ""


def find_runs(root: Path) -> Iterator[Path]:
    """The work directories at `root` or below it, in order. Raises UserError if there is no such folder."""
    if not root.is_dir():
        raise UserError(f"there is no folder {root}; name one that holds work directories of runs")
    for place, folders, _ in os.walk(root):
        folders.sort()
        if is_run(Path(place)):
            yield Path(place)
            folders.clear()


def is_run(folder: Path) -> bool:
    """Whether a run has begun there. Many other folders have a config.json."""
    run = RunFolder(folder)
    return run.config.is_file() and run.environment.is_file()


def read_entry(folder: Path) -> Entry:
    """Never raises UserError: what is wrong with a run is in its entry."""
    run = RunFolder(folder)
    try:
        starts = (read_json(run.environment) or {}).get("starts") or [{}]
        scores = read_json(run.scores)
        return Entry(
            folder,
            begun=str(starts[0].get("time", "")),
            commit=str((starts[-1].get("git") or {}).get("commit") or "")[:12],
            seed=starts[-1].get("seed"),
            finished=tuple(sorted(path.parent.name for path in folder.glob(f"*/{DONE}"))),
            gains=mean_gains(scores) if scores else {},
            dollars=sum(usage.dollars for usage in read_usage(run.metrics(LLM)).values()),
        )
    except (UserError, OSError, LookupError, TypeError, ValueError, AttributeError) as error:
        # Files of another version, edited ones, or those of somebody else.
        return Entry(folder, problem=f"{type(error).__name__}: {error}")


def mean_gains(scores: Record) -> dict[str, dict[str, float | None]]:
    """Each agent's mean relative gain by split. scores: `scores.json`."""
    gains: dict[str, dict[str, float | None]] = {}
    for row in scores["means"]:
        interval = row["relative_gain"]
        gains.setdefault(row["agent"], {})[row["split"]] = None if interval is None else interval["mean"]
    return gains


def differing_settings(configs: Sequence[Record | None]) -> list[tuple[str, list[str]]]:
    """The settings in which runs differ: their names, and each run's value as text, "" where it has none."""
    flat = [dict(flat_rows(config)) for config in configs]
    names = dict.fromkeys(name for each in flat for name in each)
    values = ((name, [each.get(name, "") for each in flat]) for name in names)
    return [(name, found) for name, found in values if len(set(found)) > 1]

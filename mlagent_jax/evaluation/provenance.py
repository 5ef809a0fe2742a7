"""Where the figures of a page come from: the code, the versions, the machine and the hours of its runs."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mlagent_jax.evaluation.read_run import Run


@dataclass(frozen=True)
class Provenance:
    """commands: of the runs. hours: those of each run's own stages, in the order of the runs."""

    commands: list[str]
    commits: list[str]
    versions: dict[str, str]
    cpus: int | None
    hours: list[float]

    @classmethod
    def of(cls, runs: Iterable[Run]) -> Provenance:
        runs = list(runs)
        starts = [start for run in runs for start in (run.environment or {}).get("starts") or ()]
        last: dict[str, Any] = starts[-1] if starts else {}
        versions = {"Python": last.get("python")} | (last.get("versions") or {})
        return cls(
            commands=list(dict.fromkeys(shlex.join(start.get("command") or ()) for start in starts)),
            commits=list(dict.fromkeys(_commit(start.get("git") or {}) for start in starts)),
            versions={name: version for name, version in versions.items() if version},
            cpus=last.get("cpus"),
            hours=[_own_seconds(run) / 3600 for run in runs],
        )

    def sentence(self, seeds: Iterable[int]) -> str:
        shown = ", ".join(f"{name} {value}" for name, value in self.versions.items())
        return (
            f"Commit {', '.join(self.commits) or 'unrecorded'}; seeds {', '.join(map(str, seeds))};"
            f" {self.cpus or 'an unknown number of'} CPU cores; {shown or 'unrecorded versions'}."
        )


def _commit(git: dict[str, Any]) -> str:
    return git.get("commit", "")[:12] + (" with local changes" if git.get("dirty") else "")


def _own_seconds(run: Run) -> float:
    """Of all stages but those that were taken from another run."""
    taken = (run.origin or {}).get("summaries") or {}
    return sum(
        summary.get("seconds") or 0.0 for stage, summary in run.summaries.items() if stage not in taken
    )

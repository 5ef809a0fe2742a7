"""What a run has left in its work directory so far, read as it stands: stages may be missing or under way."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from mlagent_jax.agent.trajectory import Trajectory
from mlagent_jax.agent.trajectory_log import latest_trajectories
from mlagent_jax.errors import UserError
from mlagent_jax.jsonl import Record, read_jsonl


@dataclass(frozen=True)
class Run:
    """Contents of a work directory; None or empty where a stage has not been there yet.

    summaries: what each stage that has finished said of itself, by its name.
    """

    name: str
    config: Record | None = None
    environment: Record | None = None
    ideas: dict[str, Record] = field(default_factory=dict)
    collected: list[Trajectory] = field(default_factory=list)
    sft_metrics: list[Record] = field(default_factory=list)
    ppo_metrics: list[Record] = field(default_factory=list)
    rollouts: list[Record] = field(default_factory=list)
    evaluated: list[Trajectory] = field(default_factory=list)
    scores: Record | None = None
    summaries: dict[str, Record] = field(default_factory=dict)

    @property
    def done(self) -> frozenset[str]:
        """Names of the stages that have finished."""
        return frozenset(self.summaries)


def read_run(workdir: Path) -> Run:
    """Raises UserError if `workdir` is no directory, and for a file that is damaged."""
    if not workdir.is_dir():
        raise UserError(f"there is no work directory {workdir}; give the --workdir of a run")
    return Run(
        name=workdir.resolve().name,
        config=read_json(workdir / "config.json"),
        environment=read_json(workdir / "environment.json"),
        ideas={path.stem: read_json(path) or {} for path in _idea_files(workdir)},
        collected=list(latest_trajectories(workdir / "collect/trajectories.jsonl", missing_ok=True).values()),
        sft_metrics=list(read_jsonl(workdir / "sft/metrics.jsonl", missing_ok=True)),
        ppo_metrics=list(read_jsonl(workdir / "ppo/metrics.jsonl", missing_ok=True)),
        rollouts=list(read_jsonl(workdir / "ppo/rollouts.jsonl", missing_ok=True)),
        evaluated=list(
            latest_trajectories(workdir / "evaluate/trajectories.jsonl", missing_ok=True).values()
        ),
        scores=read_json(workdir / "evaluate" / "scores.json"),
        summaries={path.parent.name: read_json(path) or {} for path in sorted(workdir.glob("*/done.json"))},
    )


def _idea_files(workdir: Path) -> list[Path]:
    return sorted(path for path in (workdir / "ideas").glob("*.json") if path.name != "done.json")


def read_json(path: Path) -> Record | None:
    """The object in `path`, None if there is no such file. Raises UserError if it is not a JSON object."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); delete it and run its stage again") from error
    if not isinstance(value, dict):
        raise UserError(
            f"{path} holds a JSON {type(value).__name__} instead of an object; run its stage again"
        )
    return value

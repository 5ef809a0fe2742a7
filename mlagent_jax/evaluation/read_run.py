"""What a run has stored in its work directory so far; stages may be missing or unfinished."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from mlagent_jax.agent.trajectory import Trajectory
from mlagent_jax.agent.trajectory_log import latest_trajectories
from mlagent_jax.errors import UserError
from mlagent_jax.files import read_json_object
from mlagent_jax.jsonl import Record, read_jsonl
from mlagent_jax.run_folder import DONE, RunFolder


@dataclass(frozen=True)
class Run:
    """Contents of a work directory; None or empty where a stage has not run yet.

    summaries: what each finished stage reported, by its name.
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
        """Names of the finished stages."""
        return frozenset(self.summaries)


def read_run(workdir: Path) -> Run:
    """Raises UserError if `workdir` is not a directory, or one of its files is damaged."""
    if not workdir.is_dir():
        raise UserError(f"there is no work directory {workdir}; give the --workdir of a run")
    folder = RunFolder(workdir)
    pools = sorted(path for path in folder.ideas.glob("*.json") if path.name != DONE)
    return Run(
        name=folder.name,
        config=read_json(folder.config),
        environment=read_json(folder.environment),
        ideas={path.stem: read_json(path) or {} for path in pools},
        collected=list(latest_trajectories(folder.expert_trajectories, missing_ok=True).values()),
        sft_metrics=list(read_jsonl(folder.metrics("sft"), missing_ok=True)),
        ppo_metrics=list(read_jsonl(folder.metrics("ppo"), missing_ok=True)),
        rollouts=list(read_jsonl(folder.rollouts, missing_ok=True)),
        evaluated=list(latest_trajectories(folder.evaluation_trajectories, missing_ok=True).values()),
        scores=read_json(folder.scores),
        summaries={path.parent.name: read_json(path) or {} for path in sorted(workdir.glob(f"*/{DONE}"))},
    )


def read_json(path: Path) -> Record | None:
    """The object in `path`, or None if there is no such file. Raises UserError if it is not a JSON object."""
    try:
        return read_json_object(path, UserError, remedy="delete it and run its stage again")
    except FileNotFoundError:
        return None

"""What a run has stored in its work directory so far; stages may be missing or unfinished."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from mlagent_jax.agent.trajectory import Trajectory
from mlagent_jax.agent.trajectory_log import latest_trajectories
from mlagent_jax.errors import UserError
from mlagent_jax.evaluation.scores import SCHEMA_VERSION
from mlagent_jax.files import read_json_object
from mlagent_jax.jsonl import Record, read_jsonl
from mlagent_jax.llm.usage import RoleUsage, read_usage
from mlagent_jax.run_folder import DONE, LLM, RunFolder

TRAINING = ("sft", "sft_filtered", "ppo", "ppo_shuffled")  # the stages that train a model


@dataclass(frozen=True)
class Run:
    """Contents of a work directory; None or empty where a stage has not run yet.

    metrics: what each stage that trains a model logged, by its name. summaries: what each finished stage reported.
    constant, bandit: what these agents of the evaluation chose and learnt before.
    llm_usage: what the language models of roles have cost, by role. origin: the run that stages were taken from.
    along_training: the episodes of evaluations along the training of a stage.
    """

    name: str
    config: Record | None = None
    environment: Record | None = None
    ideas: dict[str, Record] = field(default_factory=dict)
    collected: list[Trajectory] = field(default_factory=list)
    metrics: dict[str, list[Record]] = field(default_factory=dict)
    rollouts: list[Record] = field(default_factory=list)
    evaluated: list[Trajectory] = field(default_factory=list)
    scores: Record | None = None
    constant: Record | None = None
    bandit: Record | None = None
    summaries: dict[str, Record] = field(default_factory=dict)
    llm_usage: dict[str, RoleUsage] = field(default_factory=dict)
    origin: Record | None = None
    along_training: dict[str, list[Trajectory]] = field(default_factory=dict)

    @property
    def sft_metrics(self) -> list[Record]:
        return self.metrics.get("sft", [])

    @property
    def ppo_metrics(self) -> list[Record]:
        return self.metrics.get("ppo", [])

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
        metrics={name: list(read_jsonl(folder.metrics(name), missing_ok=True)) for name in TRAINING},
        along_training={
            name: list(latest_trajectories(folder.along_training(name), missing_ok=True).values())
            for name in TRAINING
        },
        rollouts=list(read_jsonl(folder.rollouts, missing_ok=True)),
        evaluated=list(latest_trajectories(folder.evaluation_trajectories, missing_ok=True).values()),
        scores=_read_scores(folder),
        constant=read_json(folder.control("constant")),
        bandit=read_json(folder.control("bandit")),
        llm_usage=read_usage(folder.metrics(LLM)),
        origin=read_json(folder.origin),
        summaries={path.parent.name: read_json(path) or {} for path in sorted(workdir.glob(f"*/{DONE}"))},
    )


def _read_scores(folder: RunFolder) -> Record | None:
    scores = read_json(folder.scores)
    if scores is not None and scores.get("schema") != SCHEMA_VERSION:
        raise UserError(
            f"{folder.scores} has schema {scores.get('schema')}, but this version reads {SCHEMA_VERSION}; delete "
            f"{folder.done('evaluate')} and run the stage evaluate again, which scores the stored episodes"
        )
    return scores


def read_json(path: Path) -> Record | None:
    """The object in `path`, or None if there is no such file. Raises UserError if it is not a JSON object."""
    try:
        return read_json_object(path, UserError, remedy="delete it and run its stage again")
    except FileNotFoundError:
        return None

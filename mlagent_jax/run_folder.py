"""The work directory of a run: every path in it is written here and nowhere else."""

from __future__ import annotations

from pathlib import Path

# In a stage's folder.
METRICS = "metrics.jsonl"
ROLLOUTS = "rollouts.jsonl"
TRAJECTORIES = "trajectories.jsonl"
ALONG_TRAINING = "evaluation.jsonl"
CHECKPOINTS = "checkpoints"
DAMAGED_SUFFIX = ".damaged"  # of the folder beside it, for checkpoints that are set aside
EXPORT = "hf"
DONE = "done.json"
TABLES = "tables"
TENSORBOARD = "tensorboard"
TRACKERS_FILE = "trackers.json"  # the runs' ids in trackers, by tracker

# In the work directory.
LLM = "llm"  # the folder of language models' recorded calls and of what they cost, made like a stage's
CONFIG = "config.json"
MLFLOW_DATABASE = "mlflow.db"
MLFLOW_ARTIFACTS = "mlflow_artifacts"


class RunFolder:
    """The paths of one run. root: its work directory; name: how the run is called, by default as that folder."""

    def __init__(self, root: Path, name: str = "") -> None:
        self.root = root
        self.name = name or root.resolve().name

    def stage(self, name: str) -> Path:
        return self.root / name

    def done(self, stage: str) -> Path:
        """The stage's summary, written once it has finished."""
        return self.stage(stage) / DONE

    def checkpoints(self, stage: str) -> Path:
        """The training states; stage: one that trains a model."""
        return self.stage(stage) / CHECKPOINTS

    def export(self, stage: str) -> Path:
        """The trained model as a Hugging Face checkpoint; stage: one that trains a model."""
        return self.stage(stage) / EXPORT

    def metrics(self, stage: str) -> Path:
        return self.stage(stage) / METRICS

    @property
    def config(self) -> Path:
        """The run's settings."""
        return self.root / CONFIG

    @property
    def environment(self) -> Path:
        """Versions, git state, device and command line of every start."""
        return self.root / "environment.json"

    @property
    def tasks(self) -> Path:
        """The fingerprints of the tasks that the run began with."""
        return self.root / "tasks.json"

    @property
    def origin(self) -> Path:
        """The run that some stages were taken from, if any were."""
        return self.root / "origin.json"

    @property
    def ideas(self) -> Path:
        return self.stage("ideas")

    def idea_pool(self, task: str) -> Path:
        return self.ideas / f"{task}.json"

    @property
    def expert_trajectories(self) -> Path:
        return self.stage("collect") / TRAJECTORIES

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
    def rollouts(self) -> Path:
        """PPO's sampled actions."""
        return self.stage("ppo") / ROLLOUTS

    def along_training(self, stage: str) -> Path:
        """The episodes of evaluations along a stage's training."""
        return self.stage(stage) / ALONG_TRAINING

    @property
    def evaluation(self) -> Path:
        return self.stage("evaluate")

    @property
    def evaluation_trajectories(self) -> Path:
        return self.evaluation / TRAJECTORIES

    def control(self, agent: str) -> Path:
        """What an agent without a model chose or learnt on the held-in tasks; agent: "constant" or "bandit"."""
        return self.evaluation / f"{agent}.json"

    @property
    def validation_trajectories(self) -> Path:
        return self.evaluation / "validation.jsonl"

    @property
    def temperatures(self) -> Path:
        """The temperature that was chosen for each trained agent, and from what."""
        return self.evaluation / "temperatures.json"

    @property
    def scores(self) -> Path:
        return self.evaluation / "scores.json"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    @property
    def comparison(self) -> Path:
        """The comparison of several seeds, in the folder that holds theirs."""
        return self.root / "comparison.json"

    def seed(self, seed: int) -> Path:
        """The work directory of one of several runs that differ in their seed."""
        return self.root / f"seed_{seed}"

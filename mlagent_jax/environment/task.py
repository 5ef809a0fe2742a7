"""A task: a folder that describes one ML problem, and its prepared data.

    tasks/NAME/task.toml        fields below
    tasks/NAME/description.md   what the agent is told in full
    tasks/NAME/train.py         the starter: working, mediocre
    tasks/NAME/prepare.py       prepare(files) -> LabelledRows, from package files or from tasks/NAME/raw/

Prepared data lie outside the repository, under one data root. Sandboxes see `DATA_ROOT/public` and nothing
else of it, so labels are held beside it, not in it. KEY is NAME-RECIPE, where RECIPE is a hash of all that
preparation depends on: data of a changed task are a new folder, never an overwritten one.

    DATA_ROOT/public/KEY/         train and test files, shown read-only to scripts as `data/`; no test labels
    DATA_ROOT/labels/KEY.csv      id, target columns, split ("public": the reward, "private": the evaluation,
                                  "unscored": must be predicted, and counts for neither)
    DATA_ROOT/labels/KEY.npy      the target array, for tasks that have one instead of target columns
    DATA_ROOT/manifests/KEY.json  source, licence, rows, seed and hashes
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlagent_jax.environment.metrics import METRICS, Prediction
from mlagent_jax.sandbox.interface import Limits


@dataclass(frozen=True)
class Board:
    """Where humans stood in the competition: the scores for its medals and of its median team."""

    gold: float
    silver: float
    bronze: float
    median: float
    teams: int
    source: str


@dataclass(frozen=True)
class Task:
    """One ML problem, ready to be worked on.

    name: folder name. title, brief: one line each; `brief` (at most 240 characters) is for compact prompts.
    description: the full text. kind: e.g. "tabular regression", "text classification".
    split: "held_in" or "held_out".
    metric: a name in `metrics.METRICS`, which knows its direction. also_metrics: further ones, only reported.
    id_column, target_columns: header of submission.csv.
    target_array: name of the array to be predicted instead of target columns, or ""; train_NAME.npy is shown,
        and the submission is submission.npy.
    prediction_range: least and greatest value that may be predicted, where the metric allows more.
    m_best: the score worth 1.0 in the linear reward; m_best_source says where it comes from.
    m_init: the starter's public score as recorded when the task was made, or None; runs measure their own.
    m_init_source: where m_init comes from if not from running this starter, else "".
    starter: text of train.py. limits: of one execution. needs_gpu: whether those limits suppose a GPU.
    board: thresholds of the competition that the task comes from, if there was one.
    show_public_score: whether feedback tells the agent its public score, as a leaderboard would.
    data_dir: prepared public folder. labels_path: held outside of every sandbox. data_digest: hash of both.
    classes: every class that a prediction may name, for metrics over classes; else empty.
    """

    name: str
    title: str
    brief: str
    description: str
    kind: str
    split: str
    metric: str
    id_column: str
    target_columns: tuple[str, ...]
    m_best: float
    m_best_source: str
    starter: str
    limits: Limits
    show_public_score: bool
    data_dir: Path
    labels_path: Path
    data_digest: str
    classes: tuple[str, ...] = ()
    also_metrics: tuple[str, ...] = ()
    target_array: str = ""
    prediction_range: tuple[float, float] | None = None
    m_init: float | None = None
    m_init_source: str = ""
    needs_gpu: bool = False
    board: Board | None = None

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metric and those that are only reported."""
        return (self.metric, *self.also_metrics)

    @property
    def submission(self) -> str:
        """Name of the file that a script must write."""
        return submission_name(self.target_array)

    @property
    def over_classes(self) -> bool:
        """Whether a prediction is the name of a class."""
        return METRICS[self.metric].prediction is Prediction.CLASS

    @property
    def prediction_bounds(self) -> tuple[float, float]:
        """Least and greatest value that every metric and the task itself allow."""
        bounds = [METRICS[name].prediction.bounds for name in self.metrics]
        bounds += [self.prediction_range] if self.prediction_range else []
        return max(low for low, _ in bounds), min(high for _, high in bounds)


def submission_name(target_array: str) -> str:
    return "submission.npy" if target_array else "submission.csv"

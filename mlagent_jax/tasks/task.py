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

from mlagent_jax.grading.spec import GradingSpec
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


@dataclass(frozen=True, kw_only=True)
class Task(GradingSpec):
    """One ML problem, ready to be worked on.

    name: folder name. title, brief: one line each; `brief` (at most 240 characters) is for compact prompts.
    description: the full text. kind: e.g. "tabular regression", "text classification".
    split: "held_in" or "held_out".
    m_best: the score worth 1.0 in the linear reward; m_best_source says where it comes from.
    m_init: the starter's public score as recorded when the task was made, or None; runs measure their own.
    m_init_source: where m_init comes from if not from running this starter, else "".
    starter: text of train.py. limits: of one execution. needs_gpu: whether those limits suppose a GPU.
    board: thresholds of the competition that the task comes from, if there was one.
    show_public_score: whether feedback tells the agent its public score, as a leaderboard would.
    data_dir: prepared public folder.
    """

    name: str
    title: str
    brief: str
    description: str
    kind: str
    split: str
    m_best: float
    m_best_source: str
    starter: str
    limits: Limits
    show_public_score: bool
    data_dir: Path
    m_init: float | None = None
    m_init_source: str = ""
    needs_gpu: bool = False
    board: Board | None = None

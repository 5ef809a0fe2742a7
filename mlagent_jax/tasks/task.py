"""A task: a folder that describes one ML problem, and its prepared data.

    tasks/NAME/task.toml        the fields below
    tasks/NAME/description.md   the full description for the agent
    tasks/NAME/train.py         the starter: a script that works, but not well
    tasks/NAME/prepare.py       prepare(files) -> LabelledRows, from package files or from tasks/NAME/raw/

Prepared data are stored outside the repository, under one data root. Sandboxes mount only `DATA_ROOT/public`, so the
labels are kept next to that folder, not in it. KEY is NAME-RECIPE, where RECIPE is a hash of everything that
preparation depends on. The data of a changed task therefore get a new folder; none is ever overwritten.

    DATA_ROOT/public/KEY/         training and test files without test labels; scripts see them read-only as `data/`
    DATA_ROOT/labels/KEY.csv      id, target columns, and split: "public" for the reward, "private" for evaluation,
                                  "unscored" for rows that must be predicted but are not scored
    DATA_ROOT/labels/KEY.npy      the target array, for tasks that have one instead of target columns
    DATA_ROOT/manifests/KEY.json  source, licence, numbers of rows, seed and hashes
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlagent_jax.grading.spec import GradingSpec
from mlagent_jax.sandbox.interface import Limits


@dataclass(frozen=True)
class Board:
    """The competition's leaderboard: the score thresholds of its medals, and the score of its median team."""

    gold: float
    silver: float
    bronze: float
    median: float
    teams: int
    source: str


@dataclass(frozen=True)
class Noise:
    """Of the starter's public score, in the metric's unit.

    seeds: standard deviation under other seeds of the script. rows: one standard error of the public rows that were
    drawn. source: the command that measures both.
    """

    seeds: float
    rows: float
    source: str


@dataclass(frozen=True, kw_only=True)
class Task(GradingSpec):
    """One ML problem with its prepared data.

    name: the name of its folder. title, brief: one line each; compact prompts use `brief`, of at most 240 characters.
    description: the full text. kind: such as "tabular regression" or "text classification".
    split: "held_in" or "held_out".
    m_best: the score that is worth 1.0 in the linear reward; m_best_source says where it comes from.
    m_init: the starter's public score as recorded when the task was made, or None; each run measures its own.
    m_init_source: where m_init comes from if not from running this starter, else "".
    noise: how much of m_init is luck, if that has been measured.
    starter: the text of train.py. limits: of one execution. needs_gpu: whether these limits assume a GPU.
    board: the thresholds of the competition that the task comes from, if there was one.
    show_public_score: whether feedback shows the agent its public score, as a leaderboard would.
    data_dir: the prepared public folder.
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
    noise: Noise | None = None
    needs_gpu: bool = False
    board: Board | None = None

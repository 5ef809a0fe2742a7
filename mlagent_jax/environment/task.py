"""A task: a folder that describes one ML problem, and its prepared data.

    tasks/NAME/task.toml        fields below
    tasks/NAME/description.md   what the agent is told in full
    tasks/NAME/train.py         the starter: working, mediocre
    tasks/NAME/prepare.py       prepare(files) -> LabelledRows, from package files or from tasks/NAME/raw/

Prepared data lie outside the repository, under one data root. Sandboxes see `DATA_ROOT/public` and nothing
else of it, so labels are held beside it, not in it. KEY is NAME-RECIPE, where RECIPE is a hash of all that
preparation depends on: data of a changed task are a new folder, never an overwritten one.

    DATA_ROOT/public/KEY/         train and test files, shown read-only to scripts as `data/`; no test labels
    DATA_ROOT/labels/KEY.csv      id, target columns, split ("public": the reward, "private": the evaluation)
    DATA_ROOT/manifests/KEY.json  source, licence, rows, seed and hashes
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlagent_jax.sandbox.interface import Limits


@dataclass(frozen=True)
class Task:
    """One ML problem, ready to be worked on.

    name: folder name. title, brief: one line each; `brief` (at most 240 characters) is for compact prompts.
    description: the full text. kind: e.g. "tabular regression", "text classification".
    split: "held_in" or "held_out".
    metric: a name in `metrics.METRICS`, which knows its direction.
    id_column, target_columns: header of submission.csv.
    m_best: the score worth 1.0 in the linear reward; m_best_source says where it comes from.
    starter: text of train.py. limits: of one execution.
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

"""What a task's `prepare.py` returns: labelled rows that are split here, or files that are already split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mlagent_jax.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


class PreparationError(UserError):
    """The data of a task could not be prepared, or have changed since."""


@dataclass(frozen=True)
class LabelledRows:
    """n labelled rows, in any order.

    rows: features and targets.
    arrays: name -> [n, ...] in the order of rows, such as "images": uint8 [n, h, w]. Includes the task's target array,
        if it has one.
    train_rows: how many become training rows; the others are test rows, half public and half private.
    source, licence: for the manifest.
    links: name -> [m, 2], undirected pairs of positions in rows, such as the edges of a graph. Scripts see them as
        NAME.csv with the columns id_a and id_b.
    """

    rows: pd.DataFrame
    train_rows: int
    source: str
    licence: str
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    links: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class SplitFiles:
    """Data that their source has already split and laid out, as a competition does.

    public: path below data/ -> its content, or a file to copy.
    labels: the id column and the target columns of every test row, in the order of the test data. A column "split"
        (public, private or unscored) may say which split each row is in; without it, a hash of the id decides.
    label_array: the target array [n, ...] in the order of labels, if the task has one.
    train_rows, source, licence: for the manifest.
    classes: all classes, where the test labels may not contain every one.
    """

    public: Mapping[str, bytes | Path]
    labels: pd.DataFrame
    train_rows: int
    source: str
    licence: str
    label_array: np.ndarray | None = None
    classes: Sequence[str] = ()

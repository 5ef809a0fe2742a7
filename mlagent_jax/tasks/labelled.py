"""What a task's `prepare.py` returns: labelled rows to be split here, or files that come split already."""

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
    """A task's data could not be prepared, or are not what was prepared."""


@dataclass(frozen=True)
class LabelledRows:
    """n labelled rows, in any order.

    rows: features and targets. arrays: name -> [n, ...] in the order of rows, e.g. "images": uint8 [n, h, w];
    the task's target array among them, if it has one.
    train_rows: how many become visible training rows; the others are test rows, half public and half private.
    source, licence: for the manifest.
    links: name -> [m, 2], pairs of positions in rows, without direction, such as a graph's edges; shown as
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
    """Data that are split and laid out by their source, as a competition's are.

    public: path below data/ -> content, or a file that is to be copied.
    labels: the id column and the target columns of every test row, in the order of the test data; and, if
    the source says so, "split" (public, private or unscored). Without it rows are halved by a hash of their id.
    label_array: the target array [n, ...] in the order of labels, if the task has one.
    train_rows, source, licence: for the manifest. classes: those that occur in training data too.
    """

    public: Mapping[str, bytes | Path]
    labels: pd.DataFrame
    train_rows: int
    source: str
    licence: str
    label_array: np.ndarray | None = None
    classes: Sequence[str] = ()

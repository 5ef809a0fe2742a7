"""Reads large submissions of numbers at once, if there is nothing unusual about them.

What is read here is what `submissions` would read cell by cell. Whatever it would refuse, or could read in another
way, is left to it, which also says what is wrong: so nothing here decides what counts.
"""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np

from mlagent_jax.grading.labels import Truth
from mlagent_jax.grading.metrics import METRICS, Prediction
from mlagent_jax.grading.spec import GradingSpec

LEAST_BYTES = 2**18  # below, the cells are read one by one in the time that it takes to start pandas


def read_plain(spec: GradingSpec, truth: Truth, submission: bytes) -> np.ndarray | None:
    """Predictions [n, t] in the order of `truth`, or None if the submission is to be read cell by cell."""
    prediction = METRICS[spec.metric].prediction
    if prediction.is_text or len(submission) < LEAST_BYTES or not _is_plain(submission):
        return None
    columns = [spec.id_column, *spec.target_columns]
    header = [
        name.strip() for name in submission.partition(b"\n")[0].decode("utf-8-sig", "replace").split(",")
    ]
    if sorted(header) != sorted(columns):
        return None
    read = _read(submission, header, spec.id_column)
    if read is None:
        return None
    identities, values = read
    rows = [truth.row_of.get(identity.strip(), -1) for identity in identities]
    low, high = spec.prediction_bounds
    fine = np.isfinite(values).all() and values.min() >= low and values.max() <= high
    if not fine or sorted(rows) != list(range(len(truth.values))):
        return None
    if prediction is Prediction.WHOLE and (values != np.round(values)).any():
        return None
    predicted = np.empty(truth.values.shape)
    order = [[name for name in header if name != spec.id_column].index(name) for name in spec.target_columns]
    predicted[rows] = values[:, order]
    return predicted


def _is_plain(submission: bytes) -> bool:
    """No quotes, and no line ends that readers of CSV understand differently."""
    if b'"' in submission or b"\0" in submission:
        return False
    return b"\r" not in submission or submission.count(b"\r") == submission.count(b"\r\n")


def _read(submission: bytes, header: list[str], id_column: str) -> tuple[list[str], np.ndarray] | None:
    """Ids, and numbers [n, t] in the order of `header`."""
    import pandas as pd

    # From 3.1 on pandas reads numbers as Python does, and wants not to be told to.
    told = tuple(int(part) for part in pd.__version__.split(".")[:2]) < (3, 1)
    exact: dict[str, Any] = {"float_precision": "round_trip"} if told else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # lines that are too long
            table = pd.read_csv(
                io.BytesIO(submission),
                names=header,
                header=0,
                index_col=False,
                dtype={id_column: str},
                keep_default_na=False,
                encoding="utf-8-sig",
                low_memory=False,
                **exact,
            )
    except (ValueError, pd.errors.ParserWarning):  # the errors of the parser and of encodings are ValueErrors
        return None
    numbers = table.drop(columns=id_column)
    one_for_each = submission.count(b",") == (len(header) - 1) * (len(table) + 1)
    if not one_for_each or not all(dtype.kind in "if" for dtype in numbers.dtypes):
        return None
    return table[id_column].tolist(), numbers.to_numpy(float)

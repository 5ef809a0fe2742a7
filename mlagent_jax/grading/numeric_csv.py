"""A fast path for large numeric submissions: pandas reads them at once if there is nothing unusual about them.

The result is what `submissions` would read cell by cell. Anything that it would refuse, or could read differently, is
left to it, and it also says what is wrong. So nothing here decides which submissions are valid.
"""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
from jaxtyping import Float

from mlagent_jax.grading.labels import Truth
from mlagent_jax.grading.metrics import METRICS, Prediction
from mlagent_jax.grading.spec import GradingSpec

MIN_BYTES = 2**18  # smaller files are read cell by cell in the time that it takes to import pandas


def read_numeric_csv(spec: GradingSpec, truth: Truth, submission: bytes) -> Float[np.ndarray, "n t"] | None:
    """Predictions in the order of `truth`, or None if the submission has to be read cell by cell."""
    prediction = METRICS[spec.metric].prediction
    if prediction.is_text or len(submission) < MIN_BYTES or not _has_plain_lines(submission):
        return None
    columns = [spec.id_column, *spec.target_columns]
    header = [
        name.strip() for name in submission.partition(b"\n")[0].decode("utf-8-sig", "replace").split(",")
    ]
    if sorted(header) != sorted(columns):
        return None
    table = _read_with_pandas(submission, header, spec.id_column)
    if table is None:
        return None
    ids, values = table
    rows = [truth.row_of.get(identity.strip(), -1) for identity in ids]
    low, high = spec.prediction_bounds
    valid = np.isfinite(values).all() and values.min() >= low and values.max() <= high
    if not valid or sorted(rows) != list(range(len(truth.values))):
        return None
    if prediction is Prediction.WHOLE and (values != np.round(values)).any():
        return None
    predicted = np.empty(truth.values.shape)
    order = [[name for name in header if name != spec.id_column].index(name) for name in spec.target_columns]
    predicted[rows] = values[:, order]
    return predicted


def _has_plain_lines(submission: bytes) -> bool:
    """Whether it has no quotes, and no line ends that CSV readers interpret differently."""
    if b'"' in submission or b"\0" in submission:
        return False
    return b"\r" not in submission or submission.count(b"\r") == submission.count(b"\r\n")


def _read_with_pandas(
    submission: bytes, header: list[str], id_column: str
) -> tuple[list[str], Float[np.ndarray, "n t"]] | None:
    """The ids, and the other columns in the order of `header`."""
    import pandas as pd

    # Since 3.1 pandas reads numbers exactly as Python does by default, and deprecates this option.
    is_older = tuple(int(part) for part in pd.__version__.split(".")[:2]) < (3, 1)
    exact: dict[str, Any] = {"float_precision": "round_trip"} if is_older else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # raised for lines that are too long
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
    except (ValueError, pd.errors.ParserWarning):  # parser and encoding errors are ValueErrors
        return None
    numbers = table.drop(columns=id_column)
    # pandas fills short lines up with NaN; the count of commas tells them.
    is_complete = submission.count(b",") == (len(header) - 1) * (len(table) + 1)
    if not is_complete or not all(dtype.kind in "if" for dtype in numbers.dtypes):
        return None
    return table[id_column].tolist(), numbers.to_numpy(float)

"""Checks the target of a task made from a table: it must be what the metric takes, and is kept as it is if possible."""

from __future__ import annotations

import math

import pandas as pd

from mlagent_jax.grading.metrics import Metric, Prediction, TrueValues
from mlagent_jax.tasks.splitting import MAX_CLASSES
from mlagent_jax.tasks.user_table.column_kinds import MAX_EXACT_INTEGER, MAX_NUMBER, NUMBER, WITH_COMMA
from mlagent_jax.tasks.user_table.text_table import NewTaskError

MIN_CLASS_ROWS = 5
MAX_CLASS_BYTES = 200  # of a class name; submissions have no room for longer ones
BINARY = (TrueValues.BINARY, TrueValues.BOTH_CLASSES)
_PAIRS = (["0", "1"], ["0.0", "1.0"], ["False", "True"], ["FALSE", "TRUE"], ["false", "true"])


def is_classification(metric: Metric) -> bool:
    return metric.prediction is Prediction.CLASS or metric.truth in BINARY


def checked_target(cells: pd.Series, name: str, metric: Metric, positive: str) -> tuple[pd.Series, list[str]]:
    """The target's cells as the task will have them, and notes for the user. Raises NewTaskError.

    cells: text, none empty; the index is the line of each row in its file.
    positive: the value that counts as 1, for metrics of 0 and 1; "" if not given.
    """
    if metric.prediction is Prediction.CLASS:
        return cells, _class_notes(cells, name)
    if metric.truth in BINARY:
        return _binary(cells, name, metric, positive)
    _check_numbers(cells, name, metric)
    whole = [cell for cell in cells if cell.strip(" +-").isdigit() and abs(int(cell)) > MAX_EXACT_INTEGER]
    rounded = (
        f"the target {name!r} has numbers such as {whole[0]!r}, which are rounded for scoring"
        if whole
        else ""
    )
    return cells, [rounded] if rounded else []


def check_counts(cells: pd.Series, name: str, metric: Metric) -> None:
    """Checks that the distinct rows are enough. cells: from `checked_target`. Raises NewTaskError."""
    target, counts = f"the target {name!r}", cells.value_counts()
    if len(counts) < 2:
        raise NewTaskError(f"{target} is {counts.index[0]!r} in every row; there is nothing to learn")
    if metric.truth in BINARY and metric.prediction is not Prediction.CLASS:
        if counts.iloc[-1] < MIN_CLASS_ROWS * 2:
            raise NewTaskError(
                f"{target} has a class with {counts.iloc[-1]} distinct rows; splitting needs at least"
                f" {MIN_CLASS_ROWS * 2}"
            )
    elif metric.prediction is Prediction.CLASS:
        if len(counts) > min(MAX_CLASSES, len(cells) // MIN_CLASS_ROWS):
            raise NewTaskError(
                f"{target} has {len(counts)} different values in {len(cells)} rows, too many classes for"
                f" {metric.name}; choose a metric for numbers, such as rmse, or merge classes"
            )
        if counts.iloc[-1] < MIN_CLASS_ROWS:
            raise NewTaskError(
                f"{target} is {counts.index[-1]!r} in only {counts.iloc[-1]} rows; a class needs {MIN_CLASS_ROWS} to be"
                " split: merge it with another one, or remove it"
            )


def _class_notes(cells: pd.Series, name: str) -> list[str]:
    classes = list(cells.unique())
    long = next((cell for cell in classes if len(cell.encode()) > MAX_CLASS_BYTES), None)
    if long is not None:
        raise NewTaskError(
            f"the target {name!r} has a class of {len(long)} characters, {long[:40]!r}...; shorten it to at most"
            f" {MAX_CLASS_BYTES} bytes"
        )
    seen: dict[str, str] = {}
    for cell in classes:
        other = seen.setdefault(cell.strip().casefold(), cell)
        if other != cell:
            return [
                f"the target {name!r} has the classes {other!r} and {cell!r}, which count as different; merge them if"
                " they are the same"
            ]
    return []


def _binary(cells: pd.Series, name: str, metric: Metric, positive: str) -> tuple[pd.Series, list[str]]:
    """The cells as "0" and "1", and notes for the user."""
    kinds = sorted(cells.unique())
    if len(kinds) != 2:
        shown = ", ".join(repr(kind[:40]) for kind in kinds[:4]) + (", ..." if len(kinds) > 4 else "")
        raise NewTaskError(
            f"the target {name!r} has {len(kinds)} different values, but {metric.name} needs two; they are {shown}"
        )
    if positive and positive not in kinds:
        raise NewTaskError(
            f"--positive is {positive!r}, but the target {name!r} is {kinds[0]!r} or {kinds[1]!r}"
        )
    if not positive and kinds not in _PAIRS:
        raise NewTaskError(
            f"the target {name!r} is {kinds[0]!r} or {kinds[1]!r}, but {metric.name} needs 0 and 1; say which one is 1,"
            f" for example with --positive={kinds[1]}"
        )
    one = positive or kinds[1]
    other = kinds[1 - kinds.index(one)]
    notes = (
        [] if (other, one) == ("0", "1") else [f"the target {name!r} is 1 for {one!r} and 0 for {other!r}"]
    )
    return cells.map({one: "1", other: "0"}), notes


def _check_numbers(cells: pd.Series, name: str, metric: Metric) -> None:
    """Each cell must be a number that the metric is defined for. Raises NewTaskError."""
    for row, (line, cell) in enumerate(cells.items(), start=1):
        where = f"the target {name!r} is {cell[:40]!r} in row {row} after the header (line {line})"
        if not NUMBER.fullmatch(cell):
            hint = (
                "write it with a decimal point and no thousands separators"
                if WITH_COMMA.fullmatch(cell)
                else "correct it"
            )
            raise NewTaskError(
                f"{where}, but {metric.name} needs numbers; {hint}, or choose a metric for classes, such as accuracy"
            )
        if not math.isfinite(float(cell)) or abs(float(cell)) > MAX_NUMBER:
            raise NewTaskError(f"{where}, which is too large to be scored")
    numbers = cells.astype(float)
    if metric.truth is TrueValues.NON_NEGATIVE and numbers.min() < 0:
        raise NewTaskError(
            f"the target {name!r} goes down to {numbers.min()}, but {metric.name} needs at least 0"
        )
    if metric.truth is TrueValues.WHOLE_VARIED and (numbers % 1 != 0).any():
        raise NewTaskError(f"the target {name!r} has fractions, but {metric.name} needs whole numbers")

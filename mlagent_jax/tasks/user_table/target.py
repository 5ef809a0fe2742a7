"""The target of a task that is made of a table: what a metric can take, as it stands in the table if possible."""

from __future__ import annotations

import math

import pandas as pd

from mlagent_jax.grading.metrics import Metric, Prediction, TrueValues
from mlagent_jax.tasks.splitting import MOST_CLASSES
from mlagent_jax.tasks.user_table.column_kinds import MOST_EXACT, NUMBER, WITH_COMMA
from mlagent_jax.tasks.user_table.text_table import NewTaskError

LEAST_OF_CLASS = 5
LONGEST_CLASS = 200  # bytes; a submission has room for no longer ones
LARGEST = 1e100  # of a number to be predicted: its square must be finite
BINARY = (TrueValues.BINARY, TrueValues.BOTH_CLASSES)
_PAIRS = (["0", "1"], ["0.0", "1.0"], ["False", "True"], ["FALSE", "TRUE"], ["false", "true"])


def is_classification(metric: Metric) -> bool:
    return metric.prediction is Prediction.CLASS or metric.truth in BINARY


def checked_target(cells: pd.Series, name: str, metric: Metric, positive: str) -> tuple[pd.Series, list[str]]:
    """The target's cells as the task has them, and what was changed. cells: text, each not empty.

    The index is the line of each row in its file. Raises NewTaskError.
    """
    if metric.prediction is Prediction.CLASS:
        return cells, _class_notes(cells, name)
    if metric.truth in BINARY:
        return _binary(cells, name, metric, positive)
    _check_numbers(cells, name, metric)
    whole = [cell for cell in cells if cell.strip(" +-").isdigit() and abs(int(cell)) > MOST_EXACT]
    rounded = f"the target {name!r} has numbers such as {whole[0]!r}, which scores round" if whole else ""
    return cells, [rounded] if rounded else []


def check_counts(cells: pd.Series, name: str, metric: Metric) -> None:
    """Looks at the rows that are left. cells: from `checked_target`. Raises NewTaskError."""
    target, counts = f"the target {name!r}", cells.value_counts()
    if len(counts) < 2:
        raise NewTaskError(f"{target} is {counts.index[0]!r} in every row; there is nothing to learn")
    if metric.truth in BINARY and metric.prediction is not Prediction.CLASS:
        if counts.iloc[-1] < LEAST_OF_CLASS * 2:
            raise NewTaskError(
                f"{target} has a class of {counts.iloc[-1]} distinct rows, fewer than {LEAST_OF_CLASS * 2}: too few to"
                " split"
            )
    elif metric.prediction is Prediction.CLASS:
        if len(counts) > min(MOST_CLASSES, len(cells) // LEAST_OF_CLASS):
            raise NewTaskError(
                f"{target} has {len(counts)} different values in {len(cells)} rows, too many classes for"
                f" {metric.name}; choose a metric of numbers such as rmse, or join classes"
            )
        if counts.iloc[-1] < LEAST_OF_CLASS:
            raise NewTaskError(
                f"{target} is {counts.index[-1]!r} in {counts.iloc[-1]} rows only; a class needs {LEAST_OF_CLASS} to"
                " be split: join it with another, or remove it"
            )


def _class_notes(cells: pd.Series, name: str) -> list[str]:
    classes = list(cells.unique())
    long = next((cell for cell in classes if len(cell.encode()) > LONGEST_CLASS), None)
    if long is not None:
        raise NewTaskError(
            f"the target {name!r} has a class of {len(long)} characters, {long[:40]!r}...; a class has at most"
            f" {LONGEST_CLASS} bytes, so shorten it"
        )
    seen: dict[str, str] = {}
    for cell in classes:
        other = seen.setdefault(cell.strip().casefold(), cell)
        if other != cell:
            return [
                f"the target {name!r} has the classes {other!r} and {cell!r}, which are taken as two; make them one if"
                " they are"
            ]
    return []


def _binary(cells: pd.Series, name: str, metric: Metric, positive: str) -> tuple[pd.Series, list[str]]:
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
            f"the target {name!r} is {kinds[0]!r} or {kinds[1]!r}, but {metric.name} needs 0 and 1; say which is 1 by"
            f" --positive={kinds[1]}"
        )
    one = positive or kinds[1]
    other = kinds[1 - kinds.index(one)]
    notes = (
        [] if (other, one) == ("0", "1") else [f"the target {name!r} is 1 for {one!r} and 0 for {other!r}"]
    )
    return cells.map({one: "1", other: "0"}), notes


def _check_numbers(cells: pd.Series, name: str, metric: Metric) -> None:
    """Each must be a number that the metric is defined for."""
    for row, (line, cell) in enumerate(cells.items(), start=1):
        where = f"the target {name!r} is {cell[:40]!r} in row {row} after the header (line {line})"
        if not NUMBER.fullmatch(cell):
            hint = (
                "write it with a point and without other signs" if WITH_COMMA.fullmatch(cell) else "mend it"
            )
            raise NewTaskError(
                f"{where}, but {metric.name} needs numbers; {hint}, or choose a metric of classes such as accuracy"
            )
        if not math.isfinite(float(cell)) or abs(float(cell)) > LARGEST:
            raise NewTaskError(f"{where}, which is too large to be scored")
    numbers = cells.astype(float)
    if metric.truth is TrueValues.NON_NEGATIVE and numbers.min() < 0:
        raise NewTaskError(
            f"the target {name!r} goes down to {numbers.min()}, but {metric.name} needs at least 0"
        )
    if metric.truth is TrueValues.WHOLE_VARIED and (numbers % 1 != 0).any():
        raise NewTaskError(f"the target {name!r} has fractions, but {metric.name} needs whole numbers")

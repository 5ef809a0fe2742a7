"""The files next to the starter in the folder of a task made from a table. Agents read the texts below."""

from __future__ import annotations

import json
from collections.abc import Collection

import pandas as pd

from mlagent_jax.grading.metrics import Metric
from mlagent_jax.tasks.user_table.pandas_options import pandas_options
from mlagent_jax.tasks.user_table.target import is_classification

MAX_LISTED_COLUMNS = 100  # that the description names, since an agent has to read it


def prepare_script(table: str, train_rows: int) -> str:
    """The text of prepare.py. table: the name of the user's file."""
    return _PREPARE.format(table=repr(table), train_rows=train_rows)


def task_toml(name: str, rows: pd.DataFrame, target: str, metric: Metric, identity: str) -> str:
    """The text of task.toml. name: of the task. identity: the name of its id column."""
    kind = "tabular classification" if is_classification(metric) else "tabular regression"
    columns = len(rows.columns) - 1
    brief = f"{kind.capitalize()}: predict {target} from {columns} columns. Metric {metric.name}, {metric.direction}."
    return _TOML.format(
        title=json.dumps(_title(name), ensure_ascii=False),
        brief=json.dumps(f"{brief[:200]} train.py: a linear model.", ensure_ascii=False),
        kind=kind,
        metric=metric.name,
        identity=json.dumps(identity, ensure_ascii=False),
        target=json.dumps(target, ensure_ascii=False),
        m_best=metric.best,
    )


def task_description(
    rows: pd.DataFrame, numbers: Collection[str], target: str, metric: Metric, identity: str, name: str
) -> str:
    """The text of description.md. rows: text. numbers: the columns whose cells are numbers."""
    options = pandas_options(rows, numbers)
    features = [column for column in rows.columns if column != target]
    listed = [
        f"- `{column}`: {'numbers' if column in numbers else 'text'}"
        + (
            ", which pandas reads as something else unless its dtype is str"
            if column in options.text_columns
            else ""
        )
        for column in features[:MAX_LISTED_COLUMNS]
    ]
    if len(features) > MAX_LISTED_COLUMNS:
        listed.append(
            f"- and {len(features) - MAX_LISTED_COLUMNS:,} more, which the header of `data/train.csv` names"
        )
    return _DESCRIPTION.format(
        title=_title(name),
        target=target,
        identity=identity,
        train=f"{len(rows) * 3 // 5:,}",
        reading=_NOT_MISSING if options.has_na_words else "",
        target_text=_TARGET_TEXT.format(target=target) if target in options.text_columns else "",
        columns="\n".join(listed),
        expected=metric.prediction.value,
        metric=metric.name,
        direction=metric.direction,
        treatment=metric.treatment,
    )


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()


_NOT_MISSING = """
Some cells are words such as NA or None that pandas takes for missing, and are not missing here: read the tables with
`keep_default_na=False, na_values=[""]`, as `train.py` does. Only an empty cell is missing.
"""

_TARGET_TEXT = """
The values of `{target}` are text; with `dtype={{"{target}": str}}` pandas reads them as they are to be written.
"""

_PREPARE = '''"""The rows of a table, as they were when this task was made of it."""

import io

import pandas as pd

from mlagent_jax.tasks.preparation import LabelledRows, RawFiles


def prepare(files: RawFiles) -> LabelledRows:
    # As text, so that 007, NA and the digits of long numbers stay what they are.
    rows = pd.read_csv(io.BytesIO(files.from_task("rows.csv")), dtype=str, keep_default_na=False)
    return LabelledRows(
        # Drop here what would give the answer away, and what is not known when a prediction is asked for.
        rows=rows,
        train_rows={train_rows},
        source={table},
        licence="the owner's",
    )
'''

_TOML = """\
title = {title}
brief = {brief}
kind = "{kind}"
split = "held_out"
metric = "{metric}"
id_column = {identity}
target_columns = [{target}]
m_best = {m_best}
m_best_source = "the metric's best; replace it by a score that would be good work, since gains are measured by it"
show_public_score = true

[limits]
wall_seconds = 60
cpu_seconds = 60
memory_mb = 4096
"""

_DESCRIPTION = """\
# {title}

Predict `{target}` of each row from the other columns.

- `data/train.csv`: {train} rows with `{identity}`, the columns below, and `{target}`.
- `data/test.csv`: the other rows, without `{target}`.
{reading}{target_text}
Write `submission.csv` with the columns `{identity}` and `{target}`, one row for each row of `data/test.csv`; each
prediction is {expected}.

It is scored by `{metric}`, {direction} ({treatment}).

The columns:

{columns}
"""

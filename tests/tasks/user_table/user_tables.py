"""Tables for the tests of tasks made from a user's table, and the tasks made from them."""

from __future__ import annotations

import contextlib
import csv
import io
import runpy
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from mlagent_jax.grading.grade import Graded, grade
from mlagent_jax.tasks.task import Task
from mlagent_jax.tasks.user_table.text_table import any_length

N = 120
WORDS = ("None", " ", " NA", "NA", "nan", "null")
CELL = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6
) | st.sampled_from(
    [
        *WORDS,
        "",
        "007",
        "1",
        "1.0",
        "-0",
        "1e5",
        "+1",
        "True",
        "a\rb",
        '"',
        '""',
        "'",
        ",",
        "\n",
        "\r\n",
        "\ufeff",
        "#",
    ]
)


class Made(NamedTuple):
    task: Task
    notes: list[str]

    def cells(self, name: str) -> list[list[str]]:
        """The cells of train.csv, test.csv or the labels, as Python's csv module reads them."""
        path = self.task.labels_path if name == "labels" else self.task.data_dir / f"{name}.csv"
        with any_length():
            return list(csv.reader(io.StringIO(path.read_bytes().decode(), newline="")))

    def column(self, name: str) -> list[str]:
        """The cells of one column in all rows, sorted."""
        found = []
        for part in ("train", "test"):
            header, *rows = self.cells(part)
            found += [row[header.index(name)] for row in rows] if name in header else []
        if name in self.task.target_columns:
            found += [row[1] for row in self.cells("labels")[1:]]
        return sorted(found)

    def run_starter(self) -> bytes:
        """The submission of train.py."""
        work = self.task.data_dir.parents[1] / f"work-{self.task.name}"
        work.mkdir(exist_ok=True)
        if not (work / "data").exists():
            (work / "data").symlink_to(self.task.data_dir)
        (work / "train.py").write_text(self.task.starter)
        with contextlib.chdir(work), contextlib.redirect_stdout(io.StringIO()):
            runpy.run_path("train.py")
        return (work / "submission.csv").read_bytes()

    def score(self) -> float:
        scores = grade(self.task, self.run_starter())
        assert isinstance(scores, Graded), scores
        return scores.private


def csv_of(names, *columns):
    """A CSV file with every cell quoted."""
    buffer = io.StringIO(newline="")
    csv.writer(buffer, quoting=csv.QUOTE_ALL).writerows([names, *zip(*columns, strict=True)])
    return buffer.getvalue()


def numbers(seed=0, n=N):
    return [f"{value:.6f}" for value in np.random.default_rng(seed).normal(size=n)]


def labels(of, *classes):
    """A class for each number, by its sign and then alternating."""
    names = classes or ("no", "yes")
    return [names[(float(value) > 0) + 2 * (i % (len(names) // 2))] for i, value in enumerate(of)]

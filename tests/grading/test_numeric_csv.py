"""The fast path for large submissions gives the same result as reading them cell by cell, or nothing."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_grade import make_task

from mlagent_jax.grading import numeric_csv, submissions
from mlagent_jax.grading.labels import read_truth
from mlagent_jax.grading.numeric_csv import read_numeric_csv

ROWS = 40
LABELS = "id,y,split\n" + "".join(
    f"{i:03d},{i % 5}.5,{'public' if i % 2 else 'private'}\n" for i in range(ROWS)
)
PLAIN = "id,y\n" + "".join(f"{i:03d},{i / 7!r}\n" for i in reversed(range(ROWS)))


@pytest.fixture
def task(tmp_path, monkeypatch):
    monkeypatch.setattr(numeric_csv, "MIN_BYTES", 0)
    return make_task(tmp_path, labels=LABELS)


def cell_by_cell(task, submission: bytes) -> np.ndarray | str:
    """The result without the fast path."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(submissions, "read_numeric_csv", lambda *_: None)
        try:
            return submissions.parse_submission(task, read_truth(task), submission)
        except submissions.RefusedSubmission as refused:
            return str(refused)


@pytest.mark.parametrize("text", [PLAIN, "\ufeff" + PLAIN, PLAIN.replace("\n", "\r\n"), PLAIN + "\n\n"])
def test_a_plain_table_is_read_to_the_last_bit(task, text):
    read = read_numeric_csv(task, read_truth(task), text.encode())
    assert read is not None
    assert read.tolist() == cell_by_cell(task, text.encode()).tolist() == [[i / 7] for i in range(ROWS)]


def test_columns_may_come_in_any_order(tmp_path, monkeypatch):
    monkeypatch.setattr(numeric_csv, "MIN_BYTES", 0)
    frame = pd.DataFrame({"id": [f"x{i}" for i in range(ROWS)], "a": range(ROWS), "b": 2.5})
    labels = frame.assign(split=["public", "private"] * (ROWS // 2))
    task = make_task(tmp_path, "mcrmse", labels.to_csv(index=False), target_columns=("a", "b"))
    read = read_numeric_csv(task, read_truth(task), frame[["b", "id", "a"]].to_csv(index=False).encode())
    assert read is not None
    assert read.tolist() == frame[["a", "b"]].to_numpy().tolist()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("007,1.0", '"007",1.0'),
        ("007,1.0\n", "007,\n"),
        ("007,1.0\n", "007,inf\n"),
        ("007,1.0\n", "007,1_0\n"),
        ("007,1.0\n", "007,True\n"),
        ("007,1.0\n", "007,1.0,3\n"),
        ("007,1.0\n", "007\n"),
        ("007,1.0\n", ""),
        ("007,1.0\n", "007,1.0\n007,1.0\n"),
        ("007,1.0\n", "7,1.0\n"),
        ("007,1.0\n", "007,1.0\r"),
        ("007,1.0\n", "007,1\x00\n"),
        ("id,y", "id,z"),
        ("id,y", "id,y,y"),
    ],
)
def test_what_is_not_plain_is_left_to_the_other_reader(task, old, new):
    assert old in PLAIN
    assert read_numeric_csv(task, read_truth(task), PLAIN.replace(old, new).encode()) is None


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.integers(0, len(PLAIN)),
            st.integers(0, 3),
            st.text("0123456789.,eE+-_ \n\r\t\"#'xnaifNIT\x00é٣", max_size=3) | st.text(max_size=2),
        ),
        max_size=3,
    )
)
def test_no_table_is_read_otherwise_than_cell_by_cell(task, edits):
    text = PLAIN
    for place, left_out, put_in in edits:
        text = text[:place] + put_in + text[place + left_out :]
    submission = text.encode("utf-8", "surrogatepass")
    read = read_numeric_csv(task, read_truth(task), submission)
    if read is not None:
        expected = cell_by_cell(task, submission)
        assert not isinstance(expected, str), expected
        assert read.tolist() == expected.tolist()

"""A thousand almost valid submissions, and what must hold for every grade."""

from __future__ import annotations

import io
import math
from pathlib import Path

import pandas as pd
import pytest
from fakes import make_task
from hypothesis import given, settings
from hypothesis import strategies as st

from mlagent_jax.grading.grade import Graded, Invalid, grade
from mlagent_jax.tasks.task import Task

VALID = b"id,y\n0,1.5\n1,2\n2,-3e2\n3,4\n"
# Pieces that could mislead a reader of such files.
PIECES = [b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b'"', b'""', b",", b"\n", b"\r", b"\r\n"]
PIECES += [b"nan", b"inf", b"-inf", b"1e999", b"1_0", b"0x1p3", b"9" * 400, b"=1+1", b"id", b"y", b"0"]
PIECES += [b"\xe2\x80\xae", b"\xd9\xa3", b"\x80\x04\x95.", b"PK\x03\x04"]

edits = st.lists(
    st.tuples(st.integers(0, len(VALID)), st.integers(0, 6), st.sampled_from(PIECES) | st.binary(max_size=8)),
    min_size=1,
    max_size=4,
)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return make_task(tmp_path_factory.mktemp("fuzz"))


@settings(max_examples=1000, deadline=None)
@given(edits=edits, repeats=st.integers(1, 2))
def test_grading_never_fails_and_never_gives_an_unearned_score(
    task: Task, edits: list[tuple[int, int, bytes]], repeats: int
) -> None:
    submission = VALID * repeats
    for at, removed, inserted in edits:
        submission = submission[:at] + inserted + submission[at + removed :]
    graded = grade(task, submission)
    if isinstance(graded, Invalid):
        assert graded.reason.isprintable()
        assert len(graded.reason) < 400
        return
    assert isinstance(graded, Graded)
    assert math.isfinite(graded.public)
    assert math.isfinite(graded.private)
    # Whatever else is in the file, the grade is that of four numbers for four ids.
    rows = dict(line.split(",") for line in _plain_rows(submission))
    assert sorted(map(int, rows)) == [0, 1, 2, 3]
    expected = [sum(abs(float(rows[str(i)]) - 10) for i in part) / 2 for part in ((0, 1), (2, 3))]
    assert [graded.public, graded.private] == pytest.approx(expected)


def _plain_rows(submission: bytes) -> list[str]:
    """`id,y` of each row, as pandas reads it."""
    table = pd.read_csv(io.BytesIO(submission), dtype=str, skip_blank_lines=True, encoding="utf-8-sig")
    table.columns = [name.strip() for name in table.columns]
    return [
        f"{identity.strip()},{value.strip()}" for identity, value in zip(table["id"], table["y"], strict=True)
    ]


def test_files_of_noise_are_refused(task: Task, tmp_path: Path) -> None:
    for noise in (
        b"",
        b"\0" * 200,
        b"\xff" * 200,
        b"id,y\n" * 3,
        b"\x80\x04\x95pickle",
        VALID.decode().encode("utf-16"),
    ):
        assert isinstance(grade(task, noise), Invalid)
    assert isinstance(grade(task, VALID), Graded)
    assert isinstance(grade(task, VALID + b"4,1\n" * 10_000_000), Invalid)  # too large

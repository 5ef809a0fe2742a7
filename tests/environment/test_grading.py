"""What a submission must be to count, and that nothing an agent can write makes grading fail."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlagent_jax.environment.grading import Graded, Invalid, LabelsError, grade
from mlagent_jax.environment.task import Task
from mlagent_jax.sandbox.interface import Limits

IDS = ("10", "11", "12", "13")
NUMBERS = "id,y,split\n10,1.0,public\n11,2.0,private\n12,3.0,public\n13,5.0,private\n"
BINARY = "id,y,split\n10,1,public\n11,0,private\n12,0,public\n13,1,private\n"
NAMES = "id,y,split\n10,cat,public\n11,dog,private\n12,dog,public\n13,cat,private\n"
DIGITS = "id,y,split\n10,3,public\n11,4,private\n12,4,public\n13,3,private\n"


def make_task(
    folder: Path, metric: str = "mae", labels: str = NUMBERS, classes: tuple[str, ...] = ()
) -> Task:
    path = folder / f"labels-{metric}-{abs(hash(labels))}.csv"
    path.write_text(labels)
    return Task(
        name="toy",
        title="Toy",
        brief="toy",
        description="toy",
        kind="tabular regression",
        split="held_in",
        metric=metric,
        id_column="id",
        target_columns=("y",),
        m_best=0.0,
        m_best_source="none",
        starter="",
        limits=Limits(),
        show_public_score=True,
        data_dir=folder,
        labels_path=path,
        data_digest=str(path),
        classes=classes,
    )


def reason(task: Task, text: str | bytes | None) -> str:
    graded = grade(task, text.encode() if isinstance(text, str) else text)
    assert isinstance(graded, Invalid), graded
    assert graded.reason.endswith(".")
    assert "\n" not in graded.reason
    return graded.reason


def test_each_split_is_scored_on_its_own_rows(tmp_path):
    # Errors: 10 -> 0, 11 -> 1, 12 -> 2, 13 -> 4.
    assert grade(make_task(tmp_path), b"id,y\n10,1\n11,3\n12,5\n13,9\n") == Graded(public=1.0, private=2.5)


def test_order_of_rows_and_columns_is_free(tmp_path):
    text = b"\xef\xbb\xbfy,id\r\n9,13\r\n1,10\r\n\r\n5,12\r\n3, 11 \r\n"
    assert grade(make_task(tmp_path), text) == Graded(public=1.0, private=2.5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "wrote no submission.csv"),
        ("", "needs the columns id, y; found nothing"),
        ("id,z\n10,1\n", "found 'id', 'z'"),
        (",id,y\n0,10,1\n", "index=False"),
        ("id,y,y\n10,1,1\n", "needs the columns id, y"),
        ("id,y\n10,1\n11,3\n12,5\n", "lacks 1 row of 4, the first for id '13'"),
        ("id,y\n", "lacks 4 rows of 4"),
        ("id,y\n10,1\n11,3\n12,5\n13,9\n14,2\n", "not in the test data: '14'"),
        ("id,y\n10,1\n11,3\n12,5\n13,9\n10,1\n", "the id '10' more than once"),
        ("id,y\n10.0,1\n", "not in the test data: '10.0'"),
        ("id,y\n10,1,2\n", "Row 1 of submission.csv has 3 values"),
        ("id,y\n10\n", "Row 1 of submission.csv has 1 value; expected 2"),
        ("id,y\n10,nan\n", "y of id '10' is 'nan'; expected a finite number"),
        ("id,y\n10,-inf\n", "expected a finite number"),
        ("id,y\n10,\n", "y of id '10' is ''"),
        ("id,y\n10,1_0\n", "'1_0'; expected a finite number"),
        ("id,y\n10,cat\n", "'cat'; expected a finite number"),
        (b"id,y\n10,\xff\n", "not UTF-8"),
        ('id,y\n10,"1\n', "not a well-formed CSV"),
        (b"\x00" * 100, "needs the columns"),
        ("x" * 100_000, "at most 2,560 are read"),
    ],
)
def test_a_bad_submission_is_refused_with_its_reason(tmp_path, text, said):
    assert said in reason(make_task(tmp_path), text)


def test_a_reason_shows_no_control_characters_and_little_text(tmp_path):
    said = reason(make_task(tmp_path), "id,y\n10,\x1b[31m" + "x" * 300 + "\n")
    assert "\x1b" not in said
    assert len(said) < 200


def rows(*values: str) -> str:
    return "id,y\n" + "".join(f"{identity},{value}\n" for identity, value in zip(IDS, values, strict=True))


def test_values_must_lie_in_the_metric_s_range(tmp_path):
    assert "expected a number of at least 0" in reason(
        make_task(tmp_path, "rmsle"), rows("1", "2", "3", "-0.1")
    )
    task = make_task(tmp_path, "log_loss", BINARY)
    assert "expected a probability from 0 to 1" in reason(task, rows("1", "0", "0", "1.01"))
    assert isinstance(grade(task, rows("1", "0", "0", "0").encode()), Graded)
    assert isinstance(grade(make_task(tmp_path, "auc", BINARY), rows("-7", "0", "1e9", "3").encode()), Graded)


def test_predictions_that_overflow_the_score_are_refused(tmp_path):
    assert "not finite" in reason(make_task(tmp_path, "rmse"), rows("1e308", "-1e308", "1e308", "1e308"))


def test_only_the_task_s_classes_may_be_named(tmp_path):
    task = make_task(tmp_path, "accuracy", NAMES, ("cat", "dog"))
    assert grade(task, rows("cat", "dog", "cat", "cat").encode()) == Graded(public=0.5, private=1.0)
    assert "'Cat'; expected one of the classes cat, dog" in reason(task, rows("Cat", "dog", "cat", "cat"))


def test_whole_numbers_as_floats_count_as_their_class(tmp_path):
    task = make_task(tmp_path, "macro_f1", DIGITS, ("3", "4"))
    assert grade(task, rows("3.0", "4", "4.0", "3").encode()) == Graded(public=1.0, private=1.0)
    assert "'3.5'" in reason(task, rows("3.5", "4", "4.0", "3"))


@pytest.mark.parametrize(
    ("metric", "labels", "said"),
    [
        ("mae", "id,y\n1,2\n", "split"),
        ("mae", "id,y,split\n1,x,public\n2,1,private\n", "could not convert"),
        ("mae", "id,y,split\n1,2,public\n1,2,private\n", "same id twice"),
        ("mae", "id,y,split\n1,2,public\n", "no private row"),
        ("mae", "id,y,split\n1,inf,public\n2,1,private\n", "not a finite number"),
        ("rmsle", "id,y,split\n1,-2,public\n2,1,private\n", "below 0"),
        ("log_loss", "id,y,split\n1,2,public\n2,1,private\n", "other than 0 and 1"),
        ("auc", BINARY.replace("10,1", "10,0"), "all of one class"),
    ],
)
def test_bad_labels_are_our_fault_and_not_the_agent_s(tmp_path, metric, labels, said):
    with pytest.raises(LabelsError, match=said):
        grade(make_task(tmp_path, metric, labels), rows("1", "1", "1", "1").encode())


METRIC_TASKS = [("mae", NUMBERS, ()), ("log_loss", BINARY, ()), ("accuracy", NAMES, ("cat", "dog"))]
WORDS = [
    "id",
    "y",
    ",",
    "\n",
    "\r",
    '"',
    "10",
    "11",
    "12",
    "13",
    "1e999",
    "-0",
    "nan",
    "cat",
    "\x00",
    "\ufeff",
    "٣",
]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(METRIC_TASKS),
    st.binary(max_size=300)
    | st.lists(st.sampled_from(WORDS), max_size=60).map(lambda ws: "".join(ws).encode()),
)
def test_no_bytes_make_grading_raise(tmp_path, kind, submission):
    graded = grade(make_task(tmp_path, *kind), submission)
    assert isinstance(graded, Graded | Invalid)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.permutations(IDS), st.lists(st.floats(-1e6, 1e6), min_size=4, max_size=4))
def test_any_valid_submission_is_graded_alike_in_any_order(tmp_path, order, values):
    def submission(identities):
        buffer = io.StringIO()
        writer = csv.writer(buffer)
        writer.writerows([("id", "y"), *((i, values[IDS.index(i)]) for i in identities)])
        return buffer.getvalue().encode()

    task = make_task(tmp_path)
    assert isinstance(grade(task, submission(order)), Graded)
    assert grade(task, submission(order)) == grade(task, submission(IDS))

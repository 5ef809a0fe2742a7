"""Which submissions are valid, and that nothing an agent can write makes grading fail."""

import csv
import io
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlagent_jax.grading.grade import Graded, Invalid, grade, grade_whole
from mlagent_jax.grading.labels import LabelsError, array_path
from mlagent_jax.sandbox.interface import Limits
from mlagent_jax.tasks.task import Task

IDS = ("10", "11", "12", "13")
NUMBERS = "id,y,split\n10,1.0,public\n11,2.0,private\n12,3.0,public\n13,5.0,private\n"
BINARY = "id,y,split\n10,1,public\n11,0,private\n12,0,public\n13,1,private\n"
NAMES = "id,y,split\n10,cat,public\n11,dog,private\n12,dog,public\n13,cat,private\n"
DIGITS = "id,y,split\n10,3,public\n11,4,private\n12,4,public\n13,3,private\n"


def make_task(
    folder: Path, metric: str = "mae", labels: str = NUMBERS, classes: tuple[str, ...] = (), **changes
) -> Task:
    path = folder / f"labels-{metric}-{abs(hash(labels))}.csv"
    path.write_text(labels)
    task = Task(
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
    return replace(task, **changes)


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
        ("mae", "id,y,split\n1,2,public\n1,2,private\n", "repeat an id"),
        ("mae", "id,y,split\n1,2,public\n", "no private row"),
        ("mae", "id,y,split\n1,inf,public\n2,1,private\n", "not a finite number"),
        ("rmsle", "id,y,split\n1,-2,public\n2,1,private\n", "below 0"),
        ("log_loss", "id,y,split\n1,2,public\n2,1,private\n", "other than 0 and 1"),
        ("auc", BINARY.replace("10,1", "10,0"), "all of one class"),
        ("pearson", NUMBERS.replace("12,3.0", "12,1.0"), "all the same"),
        ("qwk", NUMBERS.replace("5.0", "5.5"), "not a whole number"),
        (
            "mae",
            NUMBERS.replace("public", "test"),
            "the split 'test'; the splits are public, private, unscored",
        ),
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


TWO = "id,y,z,split\na,1,1,public\nb,0,1,private\nc,0,0,public\nd,1,0,private\ne,-1,-1,unscored\n"
TWO_SUBMISSION = b"id,z,y\na,0.9,0.8\nb,0.7,0.1\nc,0.2,0.4\nd,0.8,0.3\ne,0.5,0.5\n"


def test_ids_may_be_text_targets_several_and_some_rows_not_scored(tmp_path):
    task = make_task(tmp_path, "mean_column_auc", TWO, target_columns=("y", "z"))
    # Private: y in order, z in reverse order.
    assert grade(task, TWO_SUBMISSION) == Graded(public=1.0, private=0.5)
    assert "lacks 1 row of 5, the first for id 'e'" in reason(task, TWO_SUBMISSION[:-10])
    # Of all four at once: y has every pair in order but b above neither; z has 1 of 4 pairs wrong.
    assert grade_whole(task, TWO_SUBMISSION) == {"mean_column_auc": (1 - 1 / 4 + 1 - 1 / 4) / 2}


def test_further_metrics_are_reported_of_the_same_submission(tmp_path):
    task = make_task(tmp_path, "auc", BINARY, also_metrics=("binary_accuracy",))
    graded = grade(task, rows("0.4", "0.1", "0.2", "0.9").encode())
    assert graded == Graded(1.0, 1.0, {"binary_accuracy": (0.5, 1.0)})
    # A submission that one metric refuses is refused.
    assert "'2'; expected a number from 0 to 1" in reason(task, rows("1", "0", "2", "1"))


def test_a_task_may_allow_less_than_its_metric(tmp_path):
    task = make_task(tmp_path, "mae", prediction_range=(1.0, 5.0))
    assert "'5.5'; expected a number from 1 to 5" in reason(task, rows("1", "2", "5.5", "5"))
    rating = make_task(tmp_path, "qwk", RATINGS, prediction_range=(1.0, 6.0))
    assert "'7'; expected a whole number from 1 to 6" in reason(rating, rows("1", "2", "7", "5"))
    assert "'1.5'; expected a whole number from 1 to 6" in reason(rating, rows("1.5", "2", "6", "5"))


RATINGS = "id,y,split\n10,1,public\n11,2,private\n12,6,public\n13,3,private\n"


def test_ratings_are_whole_numbers_however_they_are_written(tmp_path):
    task = make_task(tmp_path, "qwk", RATINGS)
    assert grade(task, rows("1.0", "2", "6e0", "3").encode()) == Graded(1.0, 1.0)
    assert "'2.5'; expected a whole number" in reason(task, rows("1", "2.5", "6", "3"))


def test_rankings_are_lists_of_labels(tmp_path):
    task = make_task(tmp_path, "map_at_5", NAMES)
    assert grade(task, rows("cat", "cat dog", "x dog", "a b c d e cat").encode()) == Graded(0.75, 0.25)
    assert "expected one to five labels" in reason(task, rows("cat", "", "x", "y"))


ONE_HOT = "id,a,b,c,split\n1,1,0,0,public\n2,0,1,0,private\n"


def test_probabilities_of_all_classes_sum_to_one(tmp_path):
    task = make_task(tmp_path, "log_loss", ONE_HOT, target_columns=("a", "b", "c"))
    graded = grade(task, b"id,a,b,c\n1,0.5,0.3,0.2\n2,0.3,0.25,0.45\n")
    assert isinstance(graded, Graded)
    assert graded.public == pytest.approx(math.log(2))
    assert graded.private == pytest.approx(math.log(4))
    said = reason(task, "id,a,b,c\n1,0.5,0.3,0.2\n2,0.3,0.25,0.4\n")
    assert "probabilities of id '2' in submission.csv sum to 0.95; expected 1" in said
    assert isinstance(grade(task, b"id,a,b,c\n1,0.5,0.3,0.20001\n2,0.3,0.25,0.45\n"), Graded)


IMAGES = np.arange(24, dtype=np.uint8).reshape(4, 2, 3)
SPLITS = "id,split\n0,public\n1,private\n2,public\n3,private\n"


def image_task(folder: Path, metric: str = "rmse") -> Task:
    task = make_task(folder, metric, SPLITS, target_columns=(), target_array="clean")
    np.save(array_path(task.labels_path), IMAGES)
    return task


def npy(array, **options) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("dtype", ["uint8", "float16", "<f4", ">f8", "int64"])
def test_an_array_is_submitted_as_numpy_saves_it(tmp_path, dtype):
    predicted = (IMAGES + np.array([0, 1, 0, 3])[:, None, None]).astype(dtype)
    for order in (predicted, np.asfortranarray(predicted)):
        assert grade(image_task(tmp_path), npy(order)) == Graded(0.0, math.sqrt(5))
    assert grade(image_task(tmp_path, "psnr"), npy(IMAGES)) == Graded(100.0, 100.0)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (None, "wrote no submission.npy"),
        (b"", "not a file as numpy.save writes it"),
        (b"\x93NUMPY\x01\x00" + b"\xff" * 40, "not a file as numpy.save writes it"),
        (npy(IMAGES)[:8] + b"\x46\x00" + b"(" * 70 + b"\n", "not a file as numpy.save writes it"),
        (npy(IMAGES[:3]), r"the shape '(3, 2, 3)'; expected (4, 2, 3)"),
        (npy(IMAGES.reshape(4, 6)), "expected (4, 2, 3)"),
        (npy(IMAGES)[:-1], "not written to its end"),
        (npy(IMAGES) + b"0", "not written to its end"),
        (npy(IMAGES.astype(complex)), "the type 'complex128'; expected numbers"),
        (npy(IMAGES.astype(object), allow_pickle=True), "the type 'object'; expected numbers"),
        (npy(IMAGES.astype(str)), "expected numbers"),
        (npy(np.where(IMAGES == 7, np.nan, IMAGES)), "has nan at [1, 0, 1]; expected a finite number"),
        (npy(np.where(IMAGES == 23, np.inf, IMAGES)), "has inf at [3, 1, 2]"),
        (b"PK\x03\x04", "not a file as numpy.save writes it"),
        (bytes(10_000), "at most 4,288 are read"),
    ],
)
def test_a_bad_array_is_refused_with_its_reason(tmp_path, data, said):
    assert said in reason(image_task(tmp_path), data)


def test_grey_levels_have_bounds(tmp_path):
    assert "has 300 at [0, 0, 0]; expected a grey level from 0 to 255" in reason(
        image_task(tmp_path, "psnr"), npy(np.full(IMAGES.shape, 300))
    )


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=80), st.integers(0, 160), st.integers(0, 200))
def test_no_bytes_of_an_array_make_grading_raise(tmp_path, noise, start, end):
    data = npy(IMAGES)
    for submission in (data[:start] + noise + data[start + len(noise) :], data[:end] + noise):
        assert isinstance(grade(image_task(tmp_path), submission), Graded | Invalid)

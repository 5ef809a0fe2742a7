"""The classes of a user's table keep their text, and submissions that name them are valid."""

import pandas as pd
import pytest
from user_tables import WORDS, csv_of, labels, numbers

from mlagent_jax.grading.grade import Graded, Invalid, grade
from mlagent_jax.tasks.checks import constant_submission, shuffled_submission
from mlagent_jax.tasks.rows import train_targets


def test_words_that_pandas_takes_for_missing_are_classes(make):
    values = numbers(n=300)
    made = make(csv_of(["x", "y"], values, labels(values, *WORDS)))
    assert made.task.classes == tuple(sorted(WORDS))
    assert made.column("y") == sorted(labels(values, *WORDS))
    assert "keep_default_na=False" in made.task.description and "keep_default_na=False" in made.task.starter
    made.score()
    assert isinstance(grade(made.task, constant_submission(made.task)), Graded)
    assert isinstance(grade(made.task, shuffled_submission(made.task)), Graded)
    assert set(train_targets(made.task)[:, 0]) == set(WORDS)
    blank = made.run_starter().replace(b",NA\n", b",\n")
    assert isinstance(wrong := grade(made.task, blank), Invalid)
    assert "keep_default_na=False" in wrong.reason and "' NA'" in wrong.reason


@pytest.mark.parametrize(
    ("classes", "metric"),
    [
        (("01", "02"), "accuracy"),
        (("+1", "-1"), "macro_f1"),
        (("1e5", "2e5"), "accuracy"),
        (("9007199254740993", "9007199254740992"), "accuracy"),
        (("123456789012345678901234567890", "123456789012345678901234567891"), "accuracy"),
        (("1.10", "1.1"), "accuracy"),
        (("1", "01"), "accuracy"),
        (("1.0", "2.0"), "accuracy"),
        (("0", "1"), "accuracy"),
        (("True", "False"), "accuracy"),
        (("TRUE", "false"), "accuracy"),
        (("2020-01-01", "2020-02-01"), "accuracy"),
        (("inf", "-inf"), "accuracy"),
        (("a,b", 'c "d"'), "accuracy"),
        (("line\nend", "Ünï"), "accuracy"),
        (("False", "True"), "auc"),
        (("NA", "None"), "accuracy"),
    ],
)
def test_classes_come_back_as_the_starter_writes_them(make, classes, metric):
    values = numbers()
    made = make(csv_of(["x", "y"], values, labels(values, *classes)), metric=metric)
    if metric != "auc":
        assert made.column("y") == sorted(labels(values, *classes))
    assert made.score() > 0.75


@pytest.mark.parametrize(
    "classes", [("01", "02"), ("1.0", "2.0"), ("1.50", "2"), ("TRUE", "false"), ("+1", "1e5")]
)
def test_an_agent_that_reads_by_default_is_graded_where_that_names_one_class(make, classes):
    values = numbers()
    made = make(csv_of(["x", "y"], values, labels(values, *classes)))
    train, test = (pd.read_csv(made.task.data_dir / f"{name}.csv") for name in ("train", "test"))
    answer = pd.DataFrame({"id": test["id"], "y": train["y"].iloc[0]})
    assert isinstance(grade(made.task, answer.to_csv(index=False).encode()), Graded)


def test_a_number_that_two_classes_share_names_neither(make):
    values = numbers()
    made = make(csv_of(["x", "y"], values, labels(values, "1", "01")))
    ids = [row[0] for row in made.cells("test")[1:]]
    answer = "id,y\n" + "".join(f"{identity},1.0\n" for identity in ids)
    assert isinstance(grade(made.task, answer.encode()), Invalid)
    assert isinstance(grade(made.task, answer.replace("1.0", "01").encode()), Graded)


def test_a_class_may_have_a_carriage_return(make):
    values = numbers()
    made = make(csv_of(["x", "y"], values, labels(values, "a\rb", "c\r\nd")))
    assert made.task.classes == ("a\rb", "c\r\nd")
    assert made.score() > 0.8

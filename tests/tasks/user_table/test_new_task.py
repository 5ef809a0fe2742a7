"""A task made from a user's table runs and is graded, and every fault of a table is reported."""

import contextlib
import io
import re
import runpy

import numpy as np
import pandas as pd
import pytest

from mlagent_jax.grading.grade import Graded, grade
from mlagent_jax.tasks import checks as task_checks
from mlagent_jax.tasks.leak_checks import leak_checks
from mlagent_jax.tasks.loader import load_task
from mlagent_jax.tasks.preparation import prepare_task
from mlagent_jax.tasks.user_table.new_task import (
    TABLE_METRICS,
    NewTask,
    NewTaskError,
    write_new_task,
)


def table(n: int = 200) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"size": rng.normal(size=n), "colour": rng.choice(["red", "blü"], n)})
    frame["note"] = [
        f"number {i}, a {'big' if size > 0 else 'small'} one" for i, size in enumerate(frame["size"])
    ]
    frame["gap"] = frame["size"].where(rng.random(n) < 0.9)
    frame["price, $"] = (3 + frame["size"] + rng.normal(0, 0.3, n)).clip(0)
    frame["stars"] = frame["price, $"].round().clip(1, 5).astype(int)
    frame["sold"] = np.where(frame["size"] > 0.1, "yes", "no")
    frame["bought"] = (frame["size"] > 0.1).astype(int)
    return frame


def write(folder, data, target, metric, **options):
    folder.mkdir(exist_ok=True)
    path = folder / "rows.csv"
    data.to_csv(path, index=False)
    return write_new_task(NewTask(folder / "mine", path, target, metric, **options))


def graded(folder):
    """The starter's scores, run as a user would."""
    prepare_task(folder, folder.parent, folder.parent / "data")
    task = load_task(folder, folder.parent, folder.parent / "data")
    work = folder.parent / "work"
    work.mkdir()
    (work / "data").symlink_to(task.data_dir)
    (work / "train.py").write_text(task.starter)
    with contextlib.chdir(work), contextlib.redirect_stdout(io.StringIO()) as printed:
        runpy.run_path("train.py")
    assert f"validation {task.metric}: " in printed.getvalue()
    scores = grade(task, (work / "submission.csv").read_bytes())
    assert isinstance(scores, Graded), scores
    return task, scores


CASES = [
    ("price, $", "rmse", {}),
    ("price, $", "rmsle", {}),
    ("stars", "qwk", {}),
    ("stars", "macro_f1", {}),
    ("price, $", "spearman", {}),
    ("sold", "accuracy", {}),
    ("sold", "log_loss", {"positive": "yes"}),
    ("bought", "auc", {}),
]


@pytest.mark.parametrize(("target", "metric", "options"), CASES)
def test_the_starter_runs_and_beats_knowing_nothing(tmp_path, target, metric, options):
    data = table().drop(columns=[name for name in ("stars", "sold", "bought", "price, $") if name != target])
    write(tmp_path, data, target, metric, **options)
    task, scores = graded(tmp_path / "mine")
    nothing = grade(task, task_checks.constant_submission(task))
    assert isinstance(nothing, Graded)
    assert abs(task.m_best - scores.private) < abs(task.m_best - nothing.private)
    assert target.startswith(task.target_columns[0].rstrip("_").split("_")[0])
    assert [check.passed for check in leak_checks(task)][:2] == [True, True]


def test_a_table_of_text_alone_has_a_starter_too(tmp_path):
    write(tmp_path, table()[["note", "sold"]], "sold", "accuracy")
    scores = graded(tmp_path / "mine")[1]
    assert scores.public > 0.8


def test_every_offered_metric_has_a_starter(tmp_path):
    from mlagent_jax.tasks.user_table.starter import SCORES

    assert set(TABLE_METRICS) == set(SCORES)


def test_an_id_column_and_mixed_types_are_told(tmp_path):
    data = table().assign(id=range(200), mixed=[*map(str, range(199)), "n/k"])
    notes = write(tmp_path, data, "stars", "qwk")
    assert "left out the column 'id'" in notes[0]
    assert "column 'mixed' is treated as text: it holds numbers, but also 'n/k'" in notes[1]
    assert "id" not in pd.read_csv(tmp_path / "mine" / "raw" / "rows.csv").columns


def test_a_column_that_numbers_rows_and_infinite_cells_are_told(tmp_path):
    data = table()
    data.loc[[3, 4], "size"] = np.inf
    path = tmp_path / "rows.csv"
    data.to_csv(path)  # with the index, as by default
    notes = write_new_task(NewTask(tmp_path / "mine", path, "stars", "qwk"))
    assert "left out the first column, which has no name" in notes[0]
    assert "emptied 2 infinite cells in the column 'size'" in notes[1]
    rows = pd.read_csv(tmp_path / "mine" / "raw" / "rows.csv")
    assert "Unnamed: 0" not in rows.columns
    assert rows["size"].isna().sum() == 2
    graded(tmp_path / "mine")


def test_a_class_that_only_one_half_would_have_is_named(tmp_path):
    sold = np.array([0, 1] * 100)
    for seed in range(40):  # until one split of the test rows lacks the rare class
        rare = np.zeros(200, dtype=int)
        rare[np.random.default_rng(seed).choice(200, 10, replace=False)] = 1
        try:
            write(tmp_path / f"{seed}", table().assign(sold=sold, bought=rare), "bought", "auc")
        except NewTaskError as error:
            assert re.search(
                r"too few rows with some value of 'bought': after splitting, the (public|private) labels are all of"
                r" one class, so auc is not defined on them; add rows, or choose another metric",
                str(error),
            )
            assert [path.name for path in (tmp_path / f"{seed}").iterdir()] == ["rows.csv"]
            return
    pytest.fail("no split was tried that has one class only")


def with_cell(row, column, value):
    data = table().astype({column: object})
    data.loc[row, column] = value
    return data


@pytest.mark.parametrize(
    ("data", "target", "metric", "said"),
    [
        (
            table(),
            "prize, $",
            "rmse",
            r"no column 'prize, \$'; its columns are size, .*; did you mean 'price, \$'\?",
        ),
        (table(), "stars", "speed", "--metric is 'speed'; for a table it must be one of accuracy"),
        (table(), "stars", "map_at_5", "--metric is 'map_at_5'"),
        (table(), "", "rmse", "new needs --target"),
        (
            with_cell(6, "stars", None),
            "stars",
            "qwk",
            "1 of 200 rows .* have no 'stars', the first in row 7 after the header .line 8",
        ),
        (
            with_cell(6, "stars", "many"),
            "stars",
            "rmse",
            r"'many' in row 7 after the header \(line 8\), but rmse needs",
        ),
        (with_cell(6, "price, $", -1), "price, $", "rmsle", "goes down to -1.0, but rmsle needs at least 0"),
        (with_cell(6, "stars", 2.5), "stars", "qwk", "has fractions, but qwk needs whole numbers"),
        (with_cell(6, "sold", "perhaps"), "sold", "accuracy", "is 'perhaps' in only 1 rows"),
        (with_cell(6, "sold", "perhaps"), "sold", "auc", "has 3 different values, but auc needs two"),
        (
            table(),
            "sold",
            "auc",
            "is 'no' or 'yes', but auc needs 0 and 1; say which one is 1, for example with --positive=yes",
        ),
        (table(), "price, $", "accuracy", "different values in 200 rows, too many classes for accuracy"),
        (table().assign(sold="yes"), "sold", "accuracy", "'yes' in every row; there is nothing to learn"),
        (table(40), "stars", "rmse", "only 40 distinct rows; at least 60"),
        (pd.concat([table(40)] * 5), "stars", "rmse", "only 40 distinct rows; at least 60"),
        (table()[["stars"]], "stars", "rmse", "has only the target"),
    ],
)
def test_what_is_wrong_with_a_table_is_named_and_nothing_is_written(tmp_path, data, target, metric, said):
    with pytest.raises(NewTaskError, match=said):
        write(tmp_path, data, target, metric)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]


def test_encodings_and_delimiters_are_asked_for(tmp_path):
    table().to_csv(tmp_path / "latin.csv", index=False, encoding="latin-1")
    table().rename(columns={"price, $": "price"}).to_csv(
        tmp_path / "wide.csv", index=False, encoding="utf-16", sep=";"
    )
    (tmp_path / "ragged.csv").write_text("a,b\n1,2\n1,2,3\n")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "twice.csv").write_text("a,stars,a\n1,2,3\n")
    for name, options, said in (
        ("latin.csv", {}, "is not utf-8: .*--encoding=latin-1"),
        ("wide.csv", {}, "starts like UTF-16; give that encoding, for example with --encoding=utf-16"),
        ("twice.csv", {}, "has two columns named 'a'; rename or remove one"),
        ("latin.csv", {"encoding": "klingon"}, "'klingon', which Python does not know"),
        ("wide.csv", {"encoding": "utf-16"}, "only one column; set its delimiter"),
        ("ragged.csv", {}, "cannot read .*ragged.csv as a table: .*line 3"),
        ("empty.csv", {}, "cannot read .*empty.csv as a table"),
        ("none.csv", {}, "cannot read .*none.csv"),
    ):
        with pytest.raises(NewTaskError, match=said):
            write_new_task(NewTask(tmp_path / "mine", tmp_path / name, "stars", "rmse", **options))
    write_new_task(NewTask(tmp_path / "one", tmp_path / "latin.csv", "stars", "rmse", encoding="latin-1"))
    options = {"encoding": "utf-16", "delimiter": ";"}
    write_new_task(NewTask(tmp_path / "two", tmp_path / "wide.csv", "stars", "rmse", **options))
    one, two = ((tmp_path / name / "raw" / "rows.csv").read_text() for name in ("one", "two"))
    assert one.replace("price, $", "price").replace('"price"', "price") == two
    assert "blü" in one


def test_a_folder_that_is_there_is_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(NewTaskError, match="already exists"):
        write(tmp_path, table(), "stars", "rmse")
    path = tmp_path / "rows.csv"
    with pytest.raises(NewTaskError, match="cannot be a task's name"):
        write_new_task(NewTask(tmp_path / "my task", path, "stars", "rmse"))

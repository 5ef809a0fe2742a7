"""The paper's tasks, each from a synthetic raw archive of the true layout to a graded submission.

The true data need an account, so what is tested here is all but the data: unpacking, layout, split, starter,
and the score against scikit-learn's own, by the formula of the competition.
"""

import hashlib
import io
import re
import runpy
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from paper_raw import RAW, write_archive
from sklearn import metrics
from sklearn.model_selection import train_test_split
from threadpoolctl import threadpool_limits

from mlagent_jax.environment.grading import Graded, Invalid, grade, grade_whole
from mlagent_jax.environment.metrics import METRICS
from mlagent_jax.environment.preparation import prepare_task
from mlagent_jax.environment.suites import suite_names
from mlagent_jax.environment.task import Task
from mlagent_jax.environment.task_file import read_task_file
from mlagent_jax.environment.task_loader import load_task

TASKS_DIR = Path(__file__).parents[3] / "tasks"
NAMES = suite_names("paper", TASKS_DIR)


def unpinned(name: str, folder: Path, data_root: Path) -> Path:
    """A copy of the task whose archive is the synthetic one, with its hash, and any number of rows."""
    shutil.copytree(TASKS_DIR / "paper" / name, folder)
    archive = runpy.run_path(str(folder / "prepare.py"))["RAW"]
    path = data_root / "raw" / archive.name / archive.file
    write_archive(path, RAW[name](np.random.default_rng(0)))
    text = re.sub(r"\b(rows|expected)=[\d_]+", r"\1=None", (folder / "prepare.py").read_text())
    if archive.md5:
        text = text.replace(archive.md5, hashlib.md5(path.read_bytes()).hexdigest())
    (folder / "prepare.py").write_text(text)
    return folder


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """name -> the prepared task, prepared once."""
    root, found = tmp_path_factory.mktemp("paper"), {}

    def task(name: str) -> Task:
        if name not in found:
            folder = unpinned(name, root / "tasks" / name, root / "data")
            prepare_task(folder, folder.parent, root / "data")
            found[name] = load_task(folder, folder.parent, root / "data")
        return found[name]

    return task


def run_starter(task: Task, workspace: Path, monkeypatch) -> bytes:
    """In this process, as importing scikit-learn anew takes longer than all the starters."""
    monkeypatch.chdir(workspace)
    (workspace / "data").symlink_to(task.data_dir)
    (workspace / "train.py").write_text(task.starter)
    with threadpool_limits(1):  # as in a sandbox; more threads than cores are slow
        runpy.run_path("train.py", run_name="__main__")
    return (workspace / task.submission).read_bytes()


def both(task: Task, submission: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Truth and predictions [n, t] by pandas, in the order of ids."""
    truth = pd.read_csv(task.labels_path).sort_values(task.id_column)
    predicted = pd.read_csv(io.BytesIO(submission)).sort_values(task.id_column)
    scored = (truth["split"] != "unscored").to_numpy()
    columns = list(task.target_columns)
    return truth[columns].to_numpy()[scored], predicted[columns].to_numpy()[scored]


def rmsle(truth: np.ndarray, predicted: np.ndarray) -> float:
    return float(np.sqrt(np.mean((np.log1p(truth) - np.log1p(predicted)) ** 2, axis=0)).mean())


FORMULAS = {
    "accuracy": lambda truth, predicted: np.mean(truth == predicted),
    "binary_accuracy": lambda truth, predicted: np.mean(truth == (predicted > 0.5)),
    "auc": metrics.roc_auc_score,
    "mean_column_auc": lambda truth, predicted: np.mean(
        [metrics.roc_auc_score(t, p) for t, p in zip(truth.T, predicted.T, strict=True)]
    ),
    "mae": lambda truth, predicted: np.mean(np.abs(truth - predicted)),
    "mcrmse": lambda truth, predicted: np.sqrt(np.mean((truth - predicted) ** 2, axis=0)).mean(),
    "mean_column_rmsle": rmsle,
    "log_loss": lambda truth, predicted: metrics.log_loss(truth, predicted),
    "pearson": lambda truth, predicted: np.corrcoef(truth[:, 0], predicted[:, 0])[0, 1],
    "qwk": lambda truth, predicted: metrics.cohen_kappa_score(
        predicted[:, 0], truth[:, 0], weights="quadratic"
    ),
}


@pytest.mark.parametrize("name", NAMES)
def test_the_starter_scores_what_the_competitions_formula_says(tasks, name, tmp_path, monkeypatch, capsys):
    task = tasks(name)
    submission = run_starter(task, tmp_path, monkeypatch)
    assert "validation" in capsys.readouterr().out
    graded, whole = grade(task, submission), grade_whole(task, submission)
    assert isinstance(graded, Graded), graded
    for metric, score in whole.items():
        assert score == pytest.approx(FORMULAS[metric](*both(task, submission)), abs=1e-6)


def raw_table(name: str, member: str = "train.csv") -> pd.DataFrame:
    """A table of the synthetic archive, from the archive in it if it lies in one."""
    raw = RAW[name](np.random.default_rng(0))
    for inner in (f"{member}.zip", f"{Path(member).stem}.zip"):
        if member not in raw and inner in raw:
            raw[member] = zipfile.ZipFile(io.BytesIO(raw[inner])).read(member)
    return pd.read_csv(io.BytesIO(raw[member]))


SHARES = {
    "spaceship-titanic": 0.1,
    "tabular-playground-series-dec-2021": 0.1,
    "learning-agency-lab-automated-essay-scoring-2": 0.1,
    "us-patent-phrase-to-phrase-matching": 0.1,
    "spooky-author-identification": 0.1,
}


@pytest.mark.parametrize("name", SHARES)
def test_the_test_rows_are_those_of_mle_bench(tasks, name):
    task = tasks(name)
    _, expected = train_test_split(raw_table(name)[task.id_column], test_size=SHARES[name], random_state=0)
    assert pd.read_csv(task.data_dir / "test.csv")[task.id_column].tolist() == expected.tolist()
    assert pd.read_csv(task.labels_path)[task.id_column].tolist() == expected.tolist()


def test_nomad_has_new_ids_and_each_crystals_own_geometry(tasks):
    task = tasks("nomad2018-predict-transparent-conductors")
    _, expected = train_test_split(raw_table(task.name), test_size=0.1, random_state=0)
    test = pd.read_csv(task.data_dir / "test.csv")
    assert test["id"].tolist() == list(range(1, len(expected) + 1))
    geometries = [(task.data_dir / "test" / str(i) / "geometry.xyz").read_text() for i in test["id"]]
    assert geometries == [f"# of {old}\n" for old in expected["id"]]
    assert (
        pd.read_csv(task.labels_path)["bandgap_energy_ev"].tolist() == expected["bandgap_energy_ev"].tolist()
    )


def test_house_prices_are_split_by_order_as_in_mlagentbench(tasks):
    task = tasks("home-data-for-ml-course")
    assert pd.read_csv(task.labels_path)["Id"].tolist() == raw_table(task.name)["Id"].tolist()[-12:]


def test_comments_that_jigsaw_did_not_score_count_for_nothing(tasks):
    task = tasks("jigsaw-toxic-comment-classification-challenge")
    labels = pd.read_csv(task.labels_path)
    unscored = labels["toxic"] < 0
    assert unscored.sum() == 15
    assert ((labels["split"] == "unscored") == unscored).all()
    submission = labels[[task.id_column, *task.target_columns]]
    assert grade_whole(task, submission.to_csv(index=False).encode()) == {"mean_column_auc": 1.0}


@pytest.mark.parametrize("name", NAMES)
def test_labels_are_out_of_sight_and_in_halves(tasks, name):
    task = tasks(name)
    labels = pd.read_csv(task.labels_path)
    splits = labels["split"].value_counts()
    assert splits["public"] > 0
    assert splits["private"] > 0
    for path in task.data_dir.rglob("test*.csv"):
        assert not set(pd.read_csv(path, nrows=0).columns) & set(task.target_columns)


def truth_submission(task: Task) -> pd.DataFrame:
    return pd.read_csv(task.labels_path)[[task.id_column, *task.target_columns]]


def faults(task: Task) -> dict[str, pd.DataFrame]:
    """The usual mistakes, of submissions that are right otherwise."""
    good = truth_submission(task)
    target = task.target_columns[0]
    strange = good.astype({task.id_column: object})
    strange.loc[0, task.id_column] = "nobody"
    empty = good.astype({target: object})
    empty.loc[0, target] = ""
    return {
        "lacks 1 row": good[1:],
        "more than once": pd.concat([good, good[:1]]),
        "not in the test data: 'nobody'": strange,
        "needs the columns": good.drop(columns=target),
        f"{target} of id .* is ''": empty,
    }


@pytest.mark.parametrize("name", NAMES)
def test_the_usual_faults_are_refused(tasks, name):
    task = tasks(name)
    for said, submission in faults(task).items():
        refused = grade(task, submission.to_csv(index=False).encode())
        assert isinstance(refused, Invalid), said
        assert re.search(said, refused.reason), refused.reason
    assert isinstance(grade(task, None), Invalid)


@pytest.mark.parametrize("name", NAMES)
def test_the_task_file_is_whole(name):
    task = read_task_file(name, TASKS_DIR)
    assert task.limits.wall_seconds <= 1800  # the paper's time for a whole trajectory
    if task.board:
        steps = [task.board.gold, task.board.silver, task.board.bronze, task.board.median]
        assert steps == sorted(steps, reverse=METRICS[task.metric].higher_is_better)

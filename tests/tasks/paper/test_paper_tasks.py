"""The paper's tasks, each from a synthetic raw archive of the true layout to a graded submission.

The true data need an account, so what is tested here is all but the data: unpacking, layout, split, starter,
and the score against scikit-learn's own, by the formula of the competition.
"""

import functools
import gzip
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
from paper_raw import RAW, TASKS_DIR, write_archive
from PIL import Image
from sklearn import metrics
from sklearn.model_selection import train_test_split
from threadpoolctl import threadpool_limits

from mlagent_jax.environment.grading import Graded, Invalid, grade, grade_whole
from mlagent_jax.environment.labels import array_path
from mlagent_jax.environment.metrics import METRICS
from mlagent_jax.environment.preparation import prepare_task
from mlagent_jax.environment.suites import suite_names
from mlagent_jax.environment.task import Task
from mlagent_jax.environment.task_file import read_task_file
from mlagent_jax.environment.task_loader import load_task

NAMES = suite_names("paper", TASKS_DIR)


@functools.cache
def raw_files(name: str) -> dict[str, bytes]:
    return RAW[name](np.random.default_rng(0))


def unpinned(name: str, folder: Path, data_root: Path) -> Path:
    """A copy of the task whose archive is the synthetic one, with its hash, and any number of rows."""
    shutil.copytree(TASKS_DIR / "paper" / name, folder)
    archive = runpy.run_path(str(folder / "prepare.py"))["RAW"]
    path = data_root / "raw" / archive.name / archive.file
    write_archive(path, raw_files(name))
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
    """Truth and predictions [n, t], in the order of ids."""
    if task.target_array:
        return np.load(array_path(task.labels_path)), np.load(io.BytesIO(submission))
    truth = pd.read_csv(task.labels_path).sort_values(task.id_column)
    predicted = pd.read_csv(io.BytesIO(submission)).sort_values(task.id_column)
    scored = (truth["split"] != "unscored").to_numpy()
    columns = list(task.target_columns)
    return truth[columns].to_numpy()[scored], predicted[columns].to_numpy()[scored]


def rmsle(truth: np.ndarray, predicted: np.ndarray) -> float:
    return float(np.sqrt(np.mean((np.log1p(truth) - np.log1p(predicted)) ** 2, axis=0)).mean())


def map_at_5(truth: np.ndarray, predicted: np.ndarray) -> float:
    ranked = [labels.split(" ") for labels in predicted[:, 0]]
    hits = [[label == true for label in row] for true, row in zip(truth[:, 0], ranked, strict=True)]
    return float(np.mean([1 / (1 + row.index(True)) if True in row else 0 for row in hits]))


FORMULAS = {
    "accuracy": lambda truth, predicted: np.mean(truth == predicted),
    "binary_accuracy": lambda truth, predicted: np.mean(truth == (predicted > 0.5)),
    "auc": metrics.roc_auc_score,
    "mean_column_auc": lambda truth, predicted: np.mean(
        [metrics.roc_auc_score(t, p) for t, p in zip(truth.T, predicted.T, strict=True)]
    ),
    "mae": lambda truth, predicted: np.mean(np.abs(truth - predicted)),
    "rmse": lambda truth, predicted: np.sqrt(np.mean((truth.astype(float) - predicted) ** 2)),
    "map_at_5": map_at_5,
    "mcrmse": lambda truth, predicted: np.sqrt(np.mean((truth - predicted) ** 2, axis=0)).mean(),
    "mean_column_rmsle": rmsle,
    "log_loss": lambda truth, predicted: metrics.log_loss(truth, predicted),
    "pearson": lambda truth, predicted: np.corrcoef(truth[:, 0], predicted[:, 0])[0, 1],
    "qwk": lambda truth, predicted: metrics.cohen_kappa_score(
        predicted[:, 0], truth[:, 0], weights="quadratic"
    ),
}


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
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
    raw = dict(raw_files(name))
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
    "leaf-classification": 0.1,
    "aerial-cactus-identification": 0.19,
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
    assert not list(task.data_dir.rglob(f"test_{task.target_array or 'labels'}.npy"))
    for path in task.data_dir.rglob("test*.csv"):
        assert not set(pd.read_csv(path, nrows=0).columns) & set(task.target_columns)


def same_image(task: Task, path: str, name: str, raw_path: str, inner: str = "") -> bool:
    raw = raw_files(name)
    content = zipfile.ZipFile(io.BytesIO(raw[inner])).read(raw_path) if inner else raw[raw_path]
    return (task.data_dir / path).read_bytes() == content


def test_dogs_and_cats_are_renamed_and_keep_their_labels(tasks):
    task = tasks("dogs-vs-cats-redux-kernels-edition")
    names = sorted(f"{animal}.{i}.jpg" for animal in ("cat", "dog") for i in range(30))
    train, expected = train_test_split(names, test_size=0.1, random_state=0)
    labels = pd.read_csv(task.labels_path)
    assert labels["id"].tolist() == [1, 2, 3, 4, 5, 6]
    assert labels["label"].tolist() == [int("dog" in name) for name in expected]
    for i, name in enumerate(expected, start=1):
        assert same_image(task, f"test/{i}.jpg", task.name, f"train/{name}", "train.zip")
    first_cat = next(name for name in train if "cat" in name)
    assert same_image(task, "train/cat.0.jpg", task.name, f"train/{first_cat}", "train.zip")
    shown = pd.read_csv(task.data_dir / "train.csv")
    assert shown["label"].tolist() == [int("dog" in name) for name in shown["image"]]
    assert {path.name for path in (task.data_dir / "train").iterdir()} == set(shown["image"])


def test_apple_leaves_are_renamed_and_keep_their_labels(tasks):
    task = tasks("plant-pathology-2020-fgvc7")
    _, expected = train_test_split(raw_table(task.name), test_size=0.1, random_state=0)
    labels = pd.read_csv(task.labels_path)
    assert labels["image_id"].tolist() == [f"Test_{i}" for i in range(40)]
    assert labels["rust"].tolist() == expected["rust"].tolist()
    for new, old in zip(labels["image_id"], expected["image_id"], strict=True):
        assert same_image(task, f"images/{new}.jpg", task.name, f"images/{old}.jpg")


def test_icebergs_are_split_and_their_bands_stay_with_them(tasks):
    task = tasks("statoil-iceberg-classifier-challenge")
    _, expected = train_test_split(range(40), test_size=0.2, random_state=0)
    labels = pd.read_csv(task.labels_path)
    assert labels["id"].tolist() == [f"{i:04x}b" for i in expected]
    assert labels["is_iceberg"].tolist() == [int(i % 3 == 0) for i in expected]
    test = pd.read_csv(task.data_dir / "test.csv")
    assert test["inc_angle"].isna().tolist() == [i % 7 == 0 for i in expected]
    rng = np.random.default_rng(0)
    drawn = np.array([[rng.normal(-20, 5, 5625), rng.normal(-25, 5, 5625)] for _ in range(40)])
    shown = np.load(task.data_dir / "test_bands.npy").reshape(8, 2, 5625)
    np.testing.assert_allclose(shown, drawn[expected], atol=1e-3)


def test_pages_are_given_by_rows_and_lie_in_one_half(tasks):
    task = tasks("denoising-dirty-documents")
    names = sorted(f"{i + 2}.png" for i in range(20))
    _, pages = train_test_split(names, test_size=0.2, random_state=0)
    labels = pd.read_csv(task.labels_path, dtype=str)
    page = labels["id"].str.partition("_")[0]
    assert page.unique().tolist() == [name.removesuffix(".png") for name in sorted(pages)]
    assert (labels.groupby(page)["split"].nunique() == 1).all()
    archive = zipfile.ZipFile(io.BytesIO(raw_files(task.name)["train_cleaned.zip"]))
    clean = [np.asarray(Image.open(archive.open(f"train_cleaned/{name}"))) for name in sorted(pages)]
    np.testing.assert_allclose(np.load(array_path(task.labels_path)) * 255, np.concatenate(clean), atol=1e-4)


def test_arrays_with_the_usual_faults_are_refused(tasks):
    task = tasks("denoising-dirty-documents")
    good = np.load(array_path(task.labels_path))
    for said, array in {
        "has the shape": good[1:],
        "expected a finite number": np.where(good == good[0, 0], np.nan, good),
        "has the type": good.astype(np.complex64),
    }.items():
        buffer = io.BytesIO()
        np.save(buffer, array)
        refused = grade(task, buffer.getvalue())
        assert isinstance(refused, Invalid)
        assert said in refused.reason


def test_whales_with_several_photographs_are_in_both_parts(tasks):
    task = tasks("whale-categorization-playground")
    raw, train, labels = (
        raw_table(task.name),
        pd.read_csv(task.data_dir / "train.csv"),
        pd.read_csv(task.labels_path),
    )
    true = raw.set_index("Image")["Id"]
    assert sorted([*train["Image"], *labels["Image"]]) == sorted(raw["Image"])
    in_test = set(true[labels["Image"]])
    counts = raw["Id"].value_counts()
    assert set(counts[counts >= 2].index) <= in_test & set(train["Id"])
    # A whale with one photograph goes to either part by one draw, in the order of the raw table.
    rng = np.random.default_rng(0)
    draws = [rng.choice(["train", "test"], replace=False, p=[0.9, 0.1]) for _ in range(30)]
    singles = [whale for whale in raw["Id"].unique() if counts[whale] == 1]
    assert [whale for whale, drawn in zip(singles, draws, strict=True) if drawn == "test"] == [
        whale for whale in singles if whale in in_test
    ]
    known = true[labels["Image"]].isin(train["Id"]).to_numpy()
    assert (labels["Id"] == np.where(known, true[labels["Image"]], "new_whale")).all()
    assert not known.all()
    for image in labels["Image"]:
        assert same_image(task, f"test/{image}", task.name, f"train/{image}")
    assert not {path.name for path in (task.data_dir / "train").iterdir()} & set(labels["Image"])


def test_cifars_images_are_of_their_own_colours(tasks):
    task = tasks("cifar-10")
    record = raw_files(task.name)["cifar-10-batches-bin/test_batch.bin"][3 * 3073 : 4 * 3073]
    shown = np.load(task.data_dir / "test_images.npy")[3]
    assert shown[0, 1].tolist() == [record[1 + 1], record[1 + 1024 + 1], record[1 + 2048 + 1]]
    assert pd.read_csv(task.labels_path)["label"][record[0]] == "cat"


def test_papers_are_split_as_ogb_says(tasks):
    task = tasks("ogbn-arxiv")
    raw = raw_files(task.name)

    def column(name: str) -> list[int]:
        return [int(line) for line in gzip.decompress(raw[f"arxiv/{name}.csv.gz"]).split()]

    labels, order = pd.read_csv(task.labels_path), column("split/time/test")
    assert labels["id"].tolist() == order
    assert labels["label"].tolist() == [column("raw/node-label")[paper] for paper in order]
    assert len(pd.read_csv(task.data_dir / "valid.csv")) == 30


def test_all_nineteen_are_there_and_split_as_in_the_paper():
    assert sorted(NAMES) == sorted(RAW)
    splits = [read_task_file(name, TASKS_DIR).split for name in NAMES]
    assert (splits.count("held_in"), splits.count("held_out")) == (9, 10)


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


@pytest.mark.parametrize("name", [name for name in NAMES if name != "denoising-dirty-documents"])
def test_the_usual_faults_are_refused(tasks, name):
    task = tasks(name)
    for said, submission in faults(task).items():
        refused = grade(task, submission.to_csv(index=False).encode())
        assert isinstance(refused, Invalid), said
        assert re.search(said, refused.reason), refused.reason
    assert isinstance(grade(task, None), Invalid)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("aerial-cactus-identification", 1.2),
        ("detecting-insults-in-social-commentary", -0.1),
        ("dogs-vs-cats-redux-kernels-edition", 1.2),
        ("statoil-iceberg-classifier-challenge", -0.1),
        ("nomad2018-predict-transparent-conductors", -1),
        ("learning-agency-lab-automated-essay-scoring-2", 2.5),
        ("us-patent-phrase-to-phrase-matching", "inf"),
    ],
)
def test_values_that_mle_bench_refuses_are_refused(tasks, name, value):
    task = tasks(name)
    submission = truth_submission(task).astype({task.target_columns[0]: object})
    submission.loc[0, task.target_columns[0]] = value
    refused = grade(task, submission.to_csv(index=False).encode())
    assert isinstance(refused, Invalid)
    assert repr(str(value)) in refused.reason


@pytest.mark.parametrize("name", ["spooky-author-identification", "leaf-classification"])
def test_probabilities_that_do_not_sum_to_1_are_refused(tasks, name):
    task = tasks(name)
    submission = truth_submission(task)
    submission[list(task.target_columns)] *= 0.9
    refused = grade(task, submission.to_csv(index=False).encode())
    assert isinstance(refused, Invalid)
    assert "sum to 0.9; expected 1" in refused.reason


@pytest.mark.parametrize("name", NAMES)
def test_the_task_file_is_whole(name):
    task = read_task_file(name, TASKS_DIR)
    assert task.limits.wall_seconds <= 1800  # the paper's time for a whole trajectory
    if task.board:
        steps = [task.board.gold, task.board.silver, task.board.bronze, task.board.median]
        assert steps == sorted(steps, reverse=METRICS[task.metric].higher_is_better)

"""The paper's tasks, each from a synthetic raw archive with the real layout to prepared data.

The real data need an account, so everything but the data is tested here: unpacking, layout, split and labels.
"""

import gzip
import io
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from paper_raw import RAW, TASKS_DIR, raw_files
from PIL import Image
from sklearn.model_selection import train_test_split

from mlagent_jax.grading.grade import grade_whole
from mlagent_jax.grading.labels import array_path
from mlagent_jax.grading.metrics import METRICS
from mlagent_jax.tasks.suites import suite_names
from mlagent_jax.tasks.task import Task
from mlagent_jax.tasks.task_file import read_task_file

NAMES = suite_names("paper", TASKS_DIR)


def raw_table(name: str, member: str = "train.csv") -> pd.DataFrame:
    """A table of the synthetic archive, or of an archive nested in it."""
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


@pytest.mark.parametrize("name", NAMES)
def test_the_task_file_is_whole(name):
    task = read_task_file(name, TASKS_DIR)
    assert task.limits.wall_seconds <= 1800  # the paper's time for a whole trajectory
    if task.board:
        steps = [task.board.gold, task.board.silver, task.board.bronze, task.board.median]
        assert steps == sorted(steps, reverse=METRICS[task.metric].higher_is_better)

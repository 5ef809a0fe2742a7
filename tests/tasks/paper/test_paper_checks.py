"""Checks of the paper's tasks: each one runs or says why not, and finds planted leaks in data of any layout."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fakes import PlainSandbox
from paper_raw import RAW

from mlagent_jax.sandbox.interface import Result, Status
from mlagent_jax.tasks import rows as task_rows
from mlagent_jax.tasks.checks import check_task
from mlagent_jax.tasks.leak_checks import best_single_feature, hidden_labels, shared_rows
from mlagent_jax.tasks.task import Task

NO_REFERENCE = Path("none.py")
EACH = (
    "starter",
    "m_init",
    "headroom",
    "noise",
    "true labels, shuffled",
    "constant submission",
    "labels out of sight",
    "rows in both train and test",
    "best single feature",
    "order of rows",
)


@pytest.mark.filterwarnings("ignore:The number of unique classes")
@pytest.mark.parametrize("name", RAW)
def test_each_check_runs_or_says_why_it_does_not(tasks, starters, name, monkeypatch):
    """With random labels the scores mean nothing, but leaks are still leaks."""
    monkeypatch.setattr(task_rows, "MAX_CELLS", 32)
    task = tasks(name)
    given = Result(Status.OK, exit_code=0, files={task.submission: starters(name)[0]})
    checks = list(check_task(task, NO_REFERENCE, PlainSandbox([given])))
    single = "input as the answer" if task.target_array else "best single feature"
    names = [check.name.split(", ")[0] if check.name.startswith(single) else check.name for check in checks]
    assert names == [single if each == "best single feature" else each for each in EACH]
    assert [check.name for check in checks if check.passed is None] == ["m_init", "headroom", "noise"]
    by_name = {check.name: check for check in checks}
    assert by_name["starter"].passed
    assert by_name["labels out of sight"].passed, by_name["labels out of sight"]
    if name != "tabular-playground-series-dec-2021":  # their synthetic rows have only a few values
        assert by_name["rows in both train and test"].passed, by_name["rows in both train and test"]


@pytest.fixture
def opened(tasks, tmp_path):
    """name -> the task with data of its own, to plant something in."""

    def copy(name: str) -> Task:
        task = tasks(name)
        folder = tmp_path / "public" / task.data_dir.name
        shutil.copytree(task.data_dir, folder)
        shutil.copytree(task.data_dir.parent.parent / "manifests", tmp_path / "manifests")
        return replace(task, data_dir=folder)

    return copy


def test_labels_in_a_further_table_are_found(opened):
    task = opened("ogbn-arxiv")
    labels = pd.read_csv(task.labels_path)[["id", "label"]]
    valid = pd.read_csv(task.data_dir / "valid.csv")
    assert hidden_labels(task).passed
    pd.concat([valid, labels[:1]]).to_csv(task.data_dir / "valid.csv", index=False)
    assert hidden_labels(task).detail == "label"


def test_the_class_in_a_table_without_target_columns_is_found(opened):
    task = opened("spooky-author-identification")
    test = pd.read_csv(task.data_dir / "test.csv")
    test.assign(author="EAP").to_csv(task.data_dir / "test.csv", index=False)
    assert hidden_labels(task).detail == "author"


@pytest.mark.parametrize(
    ("name", "train", "test"),
    [
        ("aerial-cactus-identification", "train/{}", "test/{}"),
        ("plant-pathology-2020-fgvc7", "images/{}.jpg", "images/{}.jpg"),
        ("dogs-vs-cats-redux-kernels-edition", "train/{}", "test/{}.jpg"),
    ],
)
def test_an_image_in_both_parts_is_found(opened, name, train, test):
    task = opened(name)
    shown = pd.read_csv(task.data_dir / "train.csv").iloc[0, 0]
    asked = pd.read_csv(task.data_dir / "test.csv").iloc[0, 0]
    assert shared_rows(task).detail.startswith("0 of ")
    shutil.copyfile(task.data_dir / train.format(shown), task.data_dir / test.format(asked))
    check = shared_rows(task)
    assert check.detail.startswith("1 of ")
    assert not check.passed


def test_a_paper_that_is_the_same_as_another_is_found(opened):
    """Its features are in an array whose rows are numbered by ids."""
    task = opened("ogbn-arxiv")
    first, other = (pd.read_csv(task.data_dir / f"{part}.csv").loc[0] for part in ("train", "test"))
    features = np.load(task.data_dir / "features.npy")
    features[other["id"]] = features[first["id"]]
    np.save(task.data_dir / "features.npy", features)
    test = pd.read_csv(task.data_dir / "test.csv")
    test.loc[0, "year"] = first["year"]
    test.to_csv(task.data_dir / "test.csv", index=False)
    assert shared_rows(task).detail.startswith("1 of ")


@pytest.mark.parametrize("told_by", ["age", "bytes"])
def test_what_a_file_tells_of_its_image_is_found(opened, told_by):
    task = opened("aerial-cactus-identification")
    rows = pd.concat([pd.read_csv(task.data_dir / "train.csv"), pd.read_csv(task.labels_path)])
    for image, cactus in zip(rows["id"], rows["has_cactus"], strict=True):
        (path,) = task.data_dir.glob(f"*/{image}")
        if told_by == "bytes":
            path.write_bytes(path.read_bytes() + b" " * 9000 * cactus)
        os.utime(path, (0, cactus if told_by == "age" else 0))
    check = best_single_feature(task)
    assert (check.passed, check.name) == (False, f"best single feature, file's {told_by}")


def test_what_the_letters_of_an_id_tell_is_found(opened, tmp_path):
    task = opened("learning-agency-lab-automated-essay-scoring-2")

    def told(rows: pd.DataFrame, scores: pd.Series) -> pd.DataFrame:
        ids = [f"{'abcdefg'[score]}{number}" for number, score in enumerate(scores)]
        return rows.assign(essay_id=ids)

    train, test, labels = map(
        pd.read_csv, (task.data_dir / "train.csv", task.data_dir / "test.csv", task.labels_path)
    )
    told(train, train["score"]).to_csv(task.data_dir / "train.csv", index=False)
    told(test, labels["score"]).to_csv(task.data_dir / "test.csv", index=False)
    told(labels, labels["score"]).to_csv(tmp_path / "labels.csv", index=False)
    task = replace(task, labels_path=tmp_path / "labels.csv", data_digest="another")
    check = best_single_feature(task)
    assert (check.passed, check.name) == (False, "best single feature, id without digits")


def test_prepared_files_are_of_one_age(tasks):
    files = [
        path for path in tasks("dogs-vs-cats-redux-kernels-edition").data_dir.rglob("*") if path.is_file()
    ]
    assert {path.stat().st_mtime for path in files} == {315_532_800}

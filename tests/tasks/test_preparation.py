"""Prepared data: nothing shared, nothing told, whole or not there at all, and never overwritten."""

import json
import multiprocessing
import shutil

import numpy as np
import pandas as pd
import pytest
import toy
from toy import PREPARE, TOML, write_task

from mlagent_jax.environment import preparation
from mlagent_jax.environment.preparation import PreparationError, prepare_task
from mlagent_jax.environment.task_loader import load_task


def prepared(folder, data_root):
    prepare_task(folder, folder.parent, data_root)
    return load_task(folder, folder.parent, data_root)


def everything(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_rows_are_split_once_and_come_back_as_they_were(tmp_path):
    task = prepared(write_task(tmp_path / "toy"), tmp_path / "data")
    train, test = pd.read_csv(task.data_dir / "train.csv"), pd.read_csv(task.data_dir / "test.csv")
    labels = pd.read_csv(task.labels_path)
    assert list(train.columns) == ["id", "a", "b", "y"]
    assert list(test.columns) == ["id", "a", "b"]
    assert (len(train), len(test)) == (60, 40)
    assert labels["split"].value_counts().to_dict() == {"public": 20, "private": 20}
    again = pd.concat([train, test.merge(labels.drop(columns="split"), on="id")]).drop(columns="id")
    expected = toy.rows().sort_values("b").reset_index(drop=True)
    pd.testing.assert_frame_equal(again.sort_values("b").reset_index(drop=True), expected)


def test_labels_lie_outside_what_a_sandbox_sees(tmp_path):
    task = prepared(write_task(tmp_path / "toy"), tmp_path / "data")
    public = tmp_path / "data" / "public"
    assert task.data_dir.is_relative_to(public)
    assert not task.labels_path.is_relative_to(public)
    assert sorted(path.name for path in public.rglob("*.*") if path.is_file()) == ["test.csv", "train.csv"]
    # No held-out label as a cell, nor hidden in a feature of its row.
    labels = pd.read_csv(task.labels_path, dtype=str)
    visible = "".join(path.read_text() for path in public.rglob("*.csv"))
    assert not [label for label in labels["y"] if label in visible]


def test_ids_and_order_say_nothing_about_where_a_row_came_from(tmp_path):
    task = prepared(write_task(tmp_path / "toy"), tmp_path / "data")
    train = pd.read_csv(task.data_dir / "train.csv")
    original = train["b"].str.extract(r"(\d+)")[0].astype(int)
    assert abs(np.corrcoef(original, np.arange(60))[0, 1]) < 0.3
    assert train["id"].tolist() == list(range(60))
    labels = pd.read_csv(task.labels_path)
    runs = (labels["split"] != labels["split"].shift()).sum()
    assert 10 < runs < 35  # public and private are mixed: ids don't tell them apart


def test_rows_with_the_same_features_are_kept_once(tmp_path):
    data = toy.rows()
    twins = data.assign(y=data["y"] + 1)
    task = prepared(write_task(tmp_path / "toy", data=pd.concat([data, twins])), tmp_path / "data")
    train, test = pd.read_csv(task.data_dir / "train.csv"), pd.read_csv(task.data_dir / "test.csv")
    assert len(train) + len(test) == 100
    assert not set(train["b"]) & set(test["b"])
    manifest = json.loads((tmp_path / "data" / "manifests" / f"{task.data_dir.name}.json").read_text())
    assert manifest["rows"] == {"dropped_as_duplicates": 100, "train": 60, "public": 20, "private": 20}


ARRAYS = """\
import numpy as np, pandas as pd
from mlagent_jax.environment.preparation import LabelledRows

def prepare(files):
    images = np.arange(100 * 6, dtype=np.uint8).reshape(100, 2, 3) // 2 * 2
    images[50] = images[0]
    rows = pd.DataFrame({"y": images[:, 0, 0].astype(float)})
    return LabelledRows(rows=rows, arrays={"images": images}, train_rows=60, source="-", licence="-")
"""


def test_arrays_stay_beside_their_rows(tmp_path):
    task = prepared(write_task(tmp_path / "toy", prepare=ARRAYS), tmp_path / "data")
    train, labels = pd.read_csv(task.data_dir / "train.csv"), pd.read_csv(task.labels_path)
    train_images = np.load(task.data_dir / "train_images.npy", allow_pickle=False)
    test_images = np.load(task.data_dir / "test_images.npy", allow_pickle=False)
    assert train_images.dtype == np.uint8
    assert train_images.shape == (60, 2, 3)
    np.testing.assert_array_equal(train_images[:, 0, 0], train["y"])
    np.testing.assert_array_equal(test_images[:, 0, 0], labels["y"])
    assert not {image.tobytes() for image in train_images} & {image.tobytes() for image in test_images}


def test_a_second_call_changes_nothing_and_does_not_run_prepare(tmp_path, monkeypatch):
    folder, root = write_task(tmp_path / "toy"), tmp_path / "data"
    first = prepare_task(folder, tmp_path, root)
    before = everything(root)
    monkeypatch.setattr(preparation, "_run_prepare", None)
    assert prepare_task(folder, tmp_path, root) == first
    assert everything(root) == before


def test_the_same_everywhere(tmp_path):
    folder = write_task(tmp_path / "toy")
    prepare_task(folder, tmp_path, tmp_path / "one")
    prepare_task(folder, tmp_path, tmp_path / "two")
    assert everything(tmp_path / "one") == everything(tmp_path / "two")


def test_a_changed_task_is_prepared_beside_the_old_one(tmp_path):
    folder, root = write_task(tmp_path / "toy"), tmp_path / "data"
    old = prepare_task(folder, tmp_path, root)
    before = everything(root)
    toy.rows(seed=1).to_csv(folder / "raw" / "rows.csv", index=False)
    new = prepare_task(folder, tmp_path, root)
    assert new != old
    assert before.items() <= everything(root).items()


def _prepare_in_process(folder, root, barrier):
    barrier.wait()
    prepare_task(folder, folder.parent, root)


def test_two_processes_may_prepare_at_once(tmp_path):
    folder, root = write_task(tmp_path / "toy"), tmp_path / "data"
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    processes = [context.Process(target=_prepare_in_process, args=(folder, root, barrier)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    prepare_task(folder, tmp_path, tmp_path / "alone")
    assert everything(root) == everything(tmp_path / "alone")


def test_the_one_who_comes_second_leaves_nothing_behind(tmp_path, monkeypatch):
    folder, root = write_task(tmp_path / "toy"), tmp_path / "data"
    write = preparation._write

    def interrupted_by_another(*arguments):
        write(*arguments)
        write(*arguments)

    monkeypatch.setattr(preparation, "_write", interrupted_by_another)
    prepare_task(folder, tmp_path, root)
    assert sorted(path.name for path in root.iterdir()) == ["labels", "manifests", "public"]


def test_changed_data_are_refused_and_left_alone(tmp_path):
    folder, root = write_task(tmp_path / "toy"), tmp_path / "data"
    public = prepare_task(folder, tmp_path, root)
    (public / "train.csv").write_text("mine")
    with pytest.raises(PreparationError, match=r"were changed \(train.csv\); remove that folder"):
        prepare_task(folder, tmp_path, root)
    assert (public / "train.csv").read_text() == "mine"
    shutil.rmtree(public)
    assert prepare_task(folder, tmp_path, root) == public


def test_lost_labels_are_named(tmp_path):
    folder, root = write_task(tmp_path / "toy"), tmp_path / "data"
    public = prepare_task(folder, tmp_path, root)
    (root / "labels" / f"{public.name}.csv").unlink()
    with pytest.raises(PreparationError, match=r"are damaged .*labels"):
        load_task(folder, tmp_path, root)


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        ("def prepare(files):\n    return 1 / 0\n", "prepare.py failed: ZeroDivisionError"),
        ("x = 1\n", "prepare.py failed: KeyError: 'prepare'"),
        ("def prepare(files): ...\n", "returned NoneType, expected LabelledRows"),
        (PREPARE.replace("rows.csv", "none.csv"), "cannot read the task's raw file"),
        (
            PREPARE.replace("rows=rows", "rows=rows.rename(columns={'y': 'z'})"),
            "without the target column 'y'",
        ),
        (PREPARE.replace("rows=rows", "rows=rows.assign(id=1)"), "with a column 'id'"),
        (PREPARE.replace("rows=rows", "rows=rows.assign(y=rows.y.where(rows.y > 0))"), "lack a target value"),
        (PREPARE.replace("=60", "=99"), "has 100 distinct rows, too few"),
        (ARRAYS.replace("images},", "images[1:]},"), r"rows \(100\) and an array 'images' \(99\)"),
    ],
)
def test_a_bad_prepare_is_named_and_leaves_nothing(tmp_path, prepare, said):
    folder = write_task(tmp_path / "toy", prepare=prepare)
    with pytest.raises(PreparationError, match=said):
        prepare_task(folder, tmp_path, tmp_path / "data")
    assert not everything(tmp_path / "data")


def test_a_data_root_that_cannot_be_written_is_named(tmp_path):
    folder = write_task(tmp_path / "toy")
    (tmp_path / "data").write_text("a file")
    with pytest.raises(PreparationError, match="choose another data root"):
        prepare_task(folder, tmp_path, tmp_path / "data")


def test_a_full_disk_leaves_no_half_written_data(tmp_path, monkeypatch):
    folder, root = write_task(tmp_path / "toy"), tmp_path / "data"
    write = preparation.write_atomically

    def full(path, content):
        if path.name == "train.csv":
            raise OSError(28, "No space left on device")
        write(path, content)

    monkeypatch.setattr(preparation, "write_atomically", full)
    with pytest.raises(PreparationError, match="No space left on device"):
        prepare_task(folder, tmp_path, root)
    monkeypatch.undo()
    assert not list(root.glob("public/*"))
    assert prepare_task(folder, tmp_path, root).is_dir()


def test_classes_are_those_of_all_rows(tmp_path):
    toml = TOML.replace('"mae"', '"accuracy"')
    data = toy.rows().assign(y=["yes", "no"] * 50)
    task = prepared(write_task(tmp_path / "toy", toml=toml, data=data), tmp_path / "data")
    assert task.classes == ("no", "yes")


TEXTS = """\
import pandas as pd
from mlagent_jax.environment.preparation import LabelledRows

TEXTS = ["'", '"', "a,b", "line\\nline", "cr\\rcr", "crlf\\r\\n", "NA", " lead", "ünï\\u2028code"]
TEXTS += ["tab\\t", "0012"]

def prepare(files):
    rows = pd.DataFrame({"b": [f"{i}{TEXTS[i % 11]}" for i in range(100)], "y": range(100)})
    return LabelledRows(rows=rows, train_rows=60, source="-", licence="-")
"""


def test_text_survives_the_csv_but_for_carriage_returns(tmp_path):
    task = prepared(write_task(tmp_path / "toy", prepare=TEXTS), tmp_path / "data")
    train, test = pd.read_csv(task.data_dir / "train.csv"), pd.read_csv(task.data_dir / "test.csv")
    namespace: dict = {}
    exec(TEXTS, namespace)
    expected = namespace["prepare"](None).rows["b"].str.replace("\r\n", "\n").str.replace("\r", "\n")
    assert sorted([*train["b"], *test["b"]]) == sorted(expected)

"""Prepared data share no rows, leak no labels, are written atomically and never overwritten."""

import json
import multiprocessing
import shutil

import numpy as np
import pandas as pd
import pytest
import toy
from toy import PREPARE, TOML, write_task

from mlagent_jax.grading.labels import read_truth
from mlagent_jax.tasks import preparation
from mlagent_jax.tasks.loader import load_task
from mlagent_jax.tasks.preparation import PreparationError, prepare_task


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
    assert 10 < runs < 35  # public and private rows are mixed: ids do not separate them


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
from mlagent_jax.tasks.preparation import LabelledRows

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
    write = preparation._write_data

    def interrupted_by_another(*arguments):
        write(*arguments)
        write(*arguments)

    monkeypatch.setattr(preparation, "_write_data", interrupted_by_another)
    prepare_task(folder, tmp_path, root)
    assert sorted(path.name for path in root.iterdir()) == ["labels", "manifests", "public"]


def test_changed_data_are_refused_and_left_alone(tmp_path):
    folder, root = write_task(tmp_path / "toy"), tmp_path / "data"
    public = prepare_task(folder, tmp_path, root)
    (public / "train.csv").write_text("mine")
    with pytest.raises(PreparationError, match=r"have changed \(train.csv\); remove that folder"):
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
        (
            PREPARE.replace("rows=rows", "rows=rows.assign(y=rows.y.where(rows.y > 0))"),
            "with missing target values",
        ),
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
from mlagent_jax.tasks.preparation import LabelledRows

TEXTS = ["'", '"', "a,b", "line\\nline", "cr\\rcr", "crlf\\r\\n", "NA", " lead", "ünï\\u2028code"]
TEXTS += ["tab\\t", "0012"]

def prepare(files):
    rows = pd.DataFrame({"b": [f"{i}{TEXTS[i % 11]}" for i in range(100)], "y": range(100)})
    return LabelledRows(rows=rows, train_rows=60, source="-", licence="-")
"""


def test_text_survives_the_csv_carriage_returns_and_all(tmp_path):
    task = prepared(write_task(tmp_path / "toy", prepare=TEXTS), tmp_path / "data")
    train, test = pd.read_csv(task.data_dir / "train.csv"), pd.read_csv(task.data_dir / "test.csv")
    namespace: dict = {}
    exec(TEXTS, namespace)
    expected = namespace["prepare"](None).rows["b"]
    assert sorted([*train["b"], *test["b"]]) == sorted(expected)


SPLIT_FILES = """\
import pandas as pd
from mlagent_jax.tasks.preparation import SplitFiles

def prepare(files):
    train = "id,y\\nx1,1\\n"
    labels = pd.DataFrame({"id": ["x2", "x3", "x4", "x5"], "y": [1.0, 2.0, 3.0, 4.0]})
    public = {"train.csv": train.encode(), "test/x2.txt": b"two", "big.bin": files.folder / "rows.csv"}
    return SplitFiles(public=public, labels=labels, train_rows=1, source="-", licence="-")
"""


def test_data_that_come_split_keep_their_layout_and_ids(tmp_path):
    folder = write_task(tmp_path / "toy", prepare=SPLIT_FILES)
    task = prepared(folder, tmp_path / "data")
    assert (task.data_dir / "test" / "x2.txt").read_text() == "two"
    assert (task.data_dir / "big.bin").read_bytes() == (folder / "raw" / "rows.csv").read_bytes()
    labels = pd.read_csv(task.labels_path)
    assert labels["id"].tolist() == ["x2", "x3", "x4", "x5"]
    assert sorted(labels["split"]) == ["private", "private", "public", "public"]
    with pytest.raises(PreparationError, match="has no micro version"):
        prepare_task(folder, tmp_path, tmp_path / "data", micro=True)


def test_a_changed_file_in_a_folder_is_seen_and_very_large_data_are_measured(tmp_path, monkeypatch):
    folder, root = write_task(tmp_path / "toy", prepare=SPLIT_FILES), tmp_path / "data"
    public = prepare_task(folder, tmp_path, root)
    (public / "test" / "x2.txt").write_text("owt")
    with pytest.raises(PreparationError, match=r"have changed \(test/x2.txt\)"):
        prepare_task(folder, tmp_path, root)
    monkeypatch.setattr(preparation, "MAX_HASHED_BYTES", 10)
    assert prepare_task(folder, tmp_path, root) == public
    (public / "test" / "x2.txt").write_text("longer")
    with pytest.raises(PreparationError, match=r"have changed \(test/x2.txt\)"):
        prepare_task(folder, tmp_path, root)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("x5", "x4"), "with the id 'x4' more than once"),
        (('"y": [1', '"z": [1'), "without the column 'y'"),
        (("labels=labels", "labels=labels.assign(split='test')"), "with the split 'test'"),
        (("4.0]", "None]"), "mark such rows as unscored"),
        (
            ("train_rows=1", "train_rows=1, label_array=labels.to_numpy()"),
            "with a label_array, but no target_array",
        ),
    ],
)
def test_bad_labels_of_split_data_are_named_and_leave_nothing(tmp_path, change, said):
    folder = write_task(tmp_path / "toy", prepare=SPLIT_FILES.replace(*change))
    with pytest.raises(PreparationError, match=said):
        prepare_task(folder, tmp_path, tmp_path / "data")
    assert not everything(tmp_path / "data")


GRAPH = """\
import numpy as np, pandas as pd
from mlagent_jax.tasks.preparation import LabelledRows

def prepare(files):
    rows = pd.DataFrame({"n": range(100), "y": range(100)})
    edges = np.array([[i, i + 1] for i in range(99)] + [[1, 0]])
    links = {"edges": edges}
    return LabelledRows(rows=rows, links=links, train_rows=60, source="-", licence="-")
"""


def test_links_name_rows_by_their_new_ids(tmp_path):
    task = prepared(write_task(tmp_path / "toy", prepare=GRAPH), tmp_path / "data")
    node = pd.concat([pd.read_csv(task.data_dir / f"{part}.csv") for part in ("train", "test")])
    edges = pd.read_csv(task.data_dir / "edges.csv")
    n = dict(zip(node["id"], node["n"], strict=True))
    assert {abs(n[a] - n[b]) for a, b in edges.itertuples(index=False)} == {1}
    assert len(edges) == 99  # the repeated pair occurs once
    assert edges.equals(edges.sort_values(["id_a", "id_b"], ignore_index=True))
    bad = GRAPH.replace("[[1, 0]]", "[[1, 100]]")
    with pytest.raises(PreparationError, match="links 'edges' that are not pairs"):
        prepare_task(write_task(tmp_path / "bad", prepare=bad), tmp_path, tmp_path / "data")


CLEANING = """\
import numpy as np, pandas as pd
from mlagent_jax.tasks.preparation import LabelledRows

def prepare(files):
    noisy = np.arange(100 * 6, dtype=np.uint8).reshape(100, 2, 3)
    arrays = {"noisy": noisy, "clean": noisy // 2}
    return LabelledRows(
        rows=pd.DataFrame(index=range(100)), arrays=arrays, train_rows=60, source="-", licence="-"
    )
"""
ARRAY_TOML = TOML.replace('target_columns = ["y"]', 'target_columns = []\ntarget_array = "clean"')


def test_a_target_array_is_shown_for_training_rows_only(tmp_path):
    task = prepared(write_task(tmp_path / "toy", ARRAY_TOML, CLEANING), tmp_path / "data")
    assert sorted(path.name for path in task.data_dir.iterdir()) == [
        "test.csv",
        "test_noisy.npy",
        "train.csv",
        "train_clean.npy",
        "train_noisy.npy",
    ]
    truth = read_truth(task)
    np.testing.assert_array_equal(
        truth.values.reshape(40, 2, 3), np.load(task.data_dir / "test_noisy.npy") // 2
    )
    assert (truth.public.sum(), truth.private.sum()) == (20, 20)
    (task.labels_path.with_suffix(".npy")).write_bytes(b"")
    with pytest.raises(PreparationError, match="have changed"):
        load_task(tmp_path / "toy", tmp_path, tmp_path / "data")


def test_a_micro_version_has_few_of_the_same_rows_and_lies_beside_the_full_one(tmp_path):
    folder, root = write_task(tmp_path / "toy", data=toy.rows(400)), tmp_path / "data"
    (folder / "prepare.py").write_text(PREPARE.replace("=60", "=250"))
    full = prepared(folder, root)
    prepare_task(folder, tmp_path, root, micro=True)
    micro = load_task(folder, tmp_path, root, micro=True)
    for part, count in (("train", 100), ("test", 100)):
        few, all_rows = (pd.read_csv(task.data_dir / f"{part}.csv") for task in (micro, full))
        assert len(few) == count
        assert set(few["b"]) < set(all_rows["b"])
    assert pd.read_csv(micro.labels_path)["split"].value_counts().to_dict() == {"public": 50, "private": 50}
    assert micro.data_digest != full.data_digest

"""Checks of tasks find leaks, missing headroom, and scores that differ from the recorded ones."""

import io
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import toy
from fakes import PlainSandbox

from mlagent_jax.sandbox.interface import Result, Status
from mlagent_jax.tasks import checks as task_checks
from mlagent_jax.tasks import leak_checks, splitting
from mlagent_jax.tasks.loader import load_task
from mlagent_jax.tasks.preparation import prepare_task
from mlagent_jax.tasks.task import Noise


def prepared(folder, *arguments, **options):
    toy.write_task(folder, *arguments, **options)
    prepare_task(folder, folder.parent, folder.parent / "data")
    return load_task(folder, folder.parent, folder.parent / "data")


LEAK = toy.PREPARE.replace("rows=rows", "rows=rows.assign(c=rows.y.round(1))")


def test_a_leaky_column_is_found(tmp_path):
    for name, prepare in (("leaky", LEAK), ("clean", toy.PREPARE)):
        folder = toy.write_task(tmp_path / name, prepare=prepare, data=toy.rows(2000))
        prepare_task(folder, tmp_path, tmp_path / "data")
    leaky, clean = (load_task(name, tmp_path, tmp_path / "data") for name in ("leaky", "clean"))
    check = leak_checks.best_single_feature(leaky)
    assert (check.passed, check.name) == (False, "best single feature, c")
    assert leak_checks.best_single_feature(clean).name == "best single feature, a"


def test_a_telling_order_is_found(tmp_path, monkeypatch):
    folder = toy.write_task(tmp_path / "sorted", data=toy.rows(2000).sort_values("y"))
    monkeypatch.setattr(splitting, "_shuffled", lambda items, purpose: [*items][::2] + [*items][1::2])
    prepare_task(folder, tmp_path, tmp_path / "data")
    assert not leak_checks.by_position(load_task("sorted", tmp_path, tmp_path / "data")).passed


def test_a_shared_row_is_found(tmp_path, monkeypatch):
    data = pd.concat([toy.rows(50)] * 2)
    folder = toy.write_task(tmp_path / "twins", data=data)
    monkeypatch.setattr(splitting, "_distinct_rows", lambda features, arrays: [*range(len(features))])
    prepare_task(folder, tmp_path, tmp_path / "data")
    assert not leak_checks.shared_rows(load_task("twins", tmp_path, tmp_path / "data")).passed


TEXTS = toy.PREPARE.replace(
    "rows=rows",
    "rows=rows.assign(b=[f'The {i % 90}th long story of them all{\"!\" * (i // 90)}' for i in rows.index])",
)


def test_a_text_that_differs_by_signs_only_is_found(tmp_path):
    task = prepared(tmp_path / "texts", prepare=TEXTS.replace("rows.assign(", "rows[['y']].assign("))
    assert leak_checks.shared_rows(task).detail != "0"
    other = TEXTS.replace("rows.assign(", "rows[['y']].assign(").replace("i % 90", "i")
    assert leak_checks.shared_rows(prepared(tmp_path / "other", prepare=other)).passed


def test_labels_in_what_a_sandbox_mounts_are_found(tmp_path):
    task = prepared(tmp_path / "toy")
    assert leak_checks.hidden_labels(task).passed
    test = pd.read_csv(task.data_dir / "test.csv")
    test.assign(y=1).to_csv(task.data_dir / "test_more.csv", index=False)
    assert leak_checks.hidden_labels(task).detail == "y"
    (task.data_dir / "test_more.csv").unlink()
    (task.data_dir / "notes.bin").write_bytes(task.labels_path.read_bytes())
    assert leak_checks.hidden_labels(task).detail == "notes.bin"
    (task.data_dir / "notes.bin").unlink()
    inside = replace(task, labels_path=task.data_dir.parent / "labels.csv")
    inside.labels_path.write_bytes(task.labels_path.read_bytes())
    assert not leak_checks.hidden_labels(inside).passed


def submission(task, error):
    """The truth, off by `error` in every row."""
    labels = pd.read_csv(task.labels_path)
    return labels.assign(y=labels["y"] + error)[["id", "y"]].to_csv(index=False).encode()


@pytest.mark.parametrize(
    ("m_init", "starter", "reference", "failed"),
    [
        (1.0, 1.0, 0.5, set()),
        (1.2, 1.0, 0.5, {"m_init"}),
        (1.0, 1.0, 0.6, {"headroom"}),  # not m_best
        (0.6, 0.6, 0.5, {"headroom"}),  # too close to the starter
        (9.0, 9.0, 0.5, {"constant submission", "true labels, shuffled"}),  # worse than an uninformed guess
    ],
)
def test_scores_are_held_against_what_is_recorded(tmp_path, m_init, starter, reference, failed):
    task = replace(prepared(tmp_path / "toy", data=toy.rows(400)), m_init=m_init)
    solution = tmp_path / "toy.py"
    solution.write_text("pass")
    plan = [
        Result(Status.OK, exit_code=0, files={"submission.csv": submission(task, error)})
        for error in (starter, reference)
    ]
    found = {c.name: c.passed for c in task_checks.check_task(task, solution, PlainSandbox(plan))}
    names = {"starter", "m_init", "reference", "headroom", "constant submission", "true labels, shuffled"}
    assert {name for name in names if not found[name]} == failed


def graded_results(task, errors):
    return [
        Result(Status.OK, exit_code=0, files={"submission.csv": submission(task, error)}) for error in errors
    ]


def test_the_noise_of_a_score_is_that_of_other_seeds_and_of_other_rows(tmp_path):
    task = prepared(tmp_path / "toy", data=toy.rows(400))
    task = replace(
        task, m_init=1.0, starter="model = Forest(random_state=0)\nrng = default_rng(0)\nrows = 0\n"
    )
    truth = pd.read_csv(task.labels_path)
    errors = np.where(truth.index % 2, 0.5, 1.5)  # of absolute errors, a spread of 0.5 and a mean of 1
    seeds = [1.2, 0.8, 1.2, 0.8, 1.0]
    for recorded, passed in ((None, None), (Noise(0.18, 0.04, "-"), True), (Noise(0.4, 0.04, "-"), False)):
        sandbox = PlainSandbox(graded_results(task, [errors, *seeds]))
        checks = task_checks.check_task(replace(task, noise=recorded), tmp_path / "none.py", sandbox)
        check = next(one for one in checks if one.name == "noise")
        assert check.passed is passed
        found = re.search(r"seeds (\S+), rows (\S+) ", check.detail)
    public = (truth["split"] == "public").sum()
    assert float(found[1]) == pytest.approx(np.std([1.0, *seeds], ddof=1), abs=0.02)
    assert float(found[2]) == pytest.approx(0.5 / np.sqrt(public), rel=0.2)
    scripts = [job.files["train.py"].decode() for job in sandbox.jobs]
    assert scripts[1] == "model = Forest(random_state=1)\nrng = default_rng(1)\nrows = 0\n"
    assert len(set(scripts)) == 6


def test_a_starter_that_seeds_nothing_has_no_noise_of_seeds_and_is_not_run_again(tmp_path):
    task = prepared(tmp_path / "toy")
    sandbox = PlainSandbox(graded_results(task, [1.0]))
    check = next(
        one for one in task_checks.check_task(task, tmp_path / "none.py", sandbox) if one.name == "noise"
    )
    assert "found seeds 0, rows " in check.detail and len(sandbox.jobs) == 1


def test_a_starter_that_fails_ends_the_check(tmp_path):
    task = prepared(tmp_path / "toy")
    plan = [Result(Status.TIMEOUT, output="slow")]
    (check,) = task_checks.check_task(task, tmp_path / "none.py", PlainSandbox(plan))
    assert not check.passed
    assert "timeout" in check.detail


CLEANING = """\
import numpy as np, pandas as pd
from mlagent_jax.tasks.preparation import LabelledRows

def prepare(files):
    clean = np.random.default_rng(0).integers(0, 255, (100, 4, 5))
    arrays = {"dirty": np.clip(clean + NOISE, 0, 300), "clean": clean}
    rows = pd.DataFrame(index=range(100))
    return LabelledRows(rows=rows, arrays=arrays, train_rows=60, source="-", licence="-")
"""
ARRAY_TOML = toy.TOML.replace('target_columns = ["y"]', 'target_columns = []\ntarget_array = "clean"')


@pytest.mark.parametrize(("noise", "passed"), [("1", False), ("np.arange(5) * 100", True)])
def test_an_input_that_is_nearly_the_answer_is_found(tmp_path, noise, passed):
    task = prepared(tmp_path / "pages", ARRAY_TOML, CLEANING.replace("NOISE", noise))
    check = leak_checks.best_single_feature(task)
    assert (check.name, check.passed) == ("input as the answer, dirty", passed)
    for submit in (task_checks.constant_submission, task_checks.shuffled_submission):
        assert np.load(io.BytesIO(submit(task))).shape == (40, 4, 5)


def test_labels_of_rows_that_are_not_in_the_test_table_are_named(tmp_path):
    task = prepared(tmp_path / "toy")
    test = pd.read_csv(task.data_dir / "test.csv")
    test[1:].to_csv(task.data_dir / "test.csv", index=False)
    checks = {check.name: check for check in leak_checks.leak_checks(task)}
    for name in ("best single feature", "order of rows"):
        assert checks[name].passed is None
        assert f"test.csv lacks the id '{test['id'][0]}', which is among the labels" in checks[name].detail


LAID_OUT = """\
import pandas as pd
from mlagent_jax.tasks.preparation import SplitFiles

def prepare(files):
    labels = pd.DataFrame({"id": [f"x{i}" for i in range(40)], "y": [float(i) for i in range(40)]})
    public = {"train/x.txt": b"some of their own layout"}
    return SplitFiles(public=public, labels=labels, train_rows=1, source="-", licence="-")
"""


def test_of_data_in_a_layout_of_their_own_what_can_be_checked_is(tmp_path):
    task = prepared(tmp_path / "toy", prepare=LAID_OUT)
    plan = [Result(Status.OK, exit_code=0, files={"submission.csv": submission(task, 1.0)})]
    checks = {c.name: c for c in task_checks.check_task(task, tmp_path / "none.py", PlainSandbox(plan))}
    for name in ("starter", "true labels, shuffled", "labels out of sight"):
        assert checks.pop(name).passed
    assert {name: check.passed for name, check in checks.items()} == dict.fromkeys(
        (
            "m_init",
            "headroom",
            "noise",
            "constant submission",
            "rows in both train and test",
            "best single feature",
            "order of rows",
        )
    )
    assert all(check.detail.startswith("not applicable because ") for check in checks.values())
    assert "there is no train.csv in data/" in checks["rows in both train and test"].detail
    assert f"m_best 0.5 comes from: {task.m_best_source}" in checks["headroom"].detail

"""Checks that nothing leaks a task's labels: mounted files, shared rows, a single feature, or the order of rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from mlagent_jax.grading.labels import array_path, read_truth
from mlagent_jax.grading.metrics import METRICS, Prediction, Values
from mlagent_jax.tasks import rows as task_rows
from mlagent_jax.tasks.rows import NotApplicableError
from mlagent_jax.tasks.task import Task

MAX_SINGLE_FEATURE = 0.8  # of the way from the best uninformed guess to m_best
MAX_BY_POSITION = 0.1  # likewise
MAX_SHARED = 0.01  # of the test rows, where the source made the split and we cannot fix it
MAX_FITTED_ROWS = 20_000  # training rows that a model of a single feature is fitted to


@dataclass(frozen=True)
class Check:
    """The result of one check.

    passed: None if the check does not apply to the task. detail: what was found; scores are "public / private".
    """

    name: str
    passed: bool | None
    detail: str


def leak_checks(task: Task) -> Iterator[Check]:
    """Runs every check of this file; those that do not apply say why."""
    yield hidden_labels(task)
    for name, check in (
        ("rows in both train and test", shared_rows),
        ("best single feature", best_single_feature),
        ("order of rows", by_position),
    ):
        yield run_check(name, partial(check, task))


def run_check(name: str, check: Callable[[], Check]) -> Check:
    """The result of `check`, or the reason why it does not apply."""
    try:
        return check()
    except NotApplicableError as error:
        return Check(name, None, f"not applicable because {error}")


def hidden_labels(task: Task) -> Check:
    """Nothing that a sandbox mounts may hold test labels: no labels file, no target column, no target array."""
    mounted = task.data_dir.parent
    test_ids = set(read_truth(task).row_of)
    shown: set[str] = set()
    for path in task.data_dir.rglob("*.csv"):
        if path == task.data_dir / "train.csv":
            continue
        rows = pd.read_csv(path, dtype=str, keep_default_na=False)
        targets = [*task.target_columns, task_rows.label_column(task, rows)]
        if path.name.startswith("test") or not test_ids.isdisjoint(rows.get(task.id_column, ())):
            shown |= {name for name in targets if name is not None and name in rows}
    if task.target_array:
        shown |= {path.name for path in task.data_dir.rglob(f"test_{task.target_array}.npy")}
    labels = [task.labels_path, *([array_path(task.labels_path)] if task.target_array else [])]
    sizes, hidden = {path.stat().st_size for path in labels}, {path.read_bytes() for path in labels}
    files = (path for path in task.data_dir.rglob("*") if path.is_file() and path.stat().st_size in sizes)
    shown |= {path.name for path in files if path.read_bytes() in hidden}
    outside = not any(path.resolve().is_relative_to(mounted.resolve()) for path in labels)
    return Check("labels out of sight", outside and not shown, ", ".join(sorted(shown)) or "none mounted")


def shared_rows(task: Task) -> Check:
    """No test row may have the features of a training row; texts count as equal if only punctuation or links differ."""
    train, test = (set(task_rows.read_part(task, part).columns) for part in ("train", "test"))
    names = sorted((train & test) - {task.id_column, *task.target_columns})
    keys = task_rows.row_keys(task, "test", names)
    shared = int(np.isin(keys, task_rows.row_keys(task, "train", names)).sum())
    if _split_here(task):
        return Check("rows in both train and test", shared == 0, str(shared))
    return Check(
        "rows in both train and test",
        shared <= MAX_SHARED * len(keys),
        f"{shared} of {len(keys):,}, by the source's split; at most {MAX_SHARED:.0%}",
    )


def _split_here(task: Task) -> bool:
    """Whether `splitting` split the rows, after dropping duplicates; it records how many it dropped."""
    manifest = task.data_dir.parent.parent / "manifests" / f"{task.data_dir.name}.json"
    return "dropped_as_duplicates" in json.loads(manifest.read_text())["rows"]


def best_single_feature(task: Task) -> Check:
    """How much of the way to m_best a model of one feature gets: a column, a pixel, the id, or a file's size or name.

    For a target array: how far an input array gets if it is submitted unchanged.
    """
    if task.target_array:
        return _input_as_answer(task)
    targets, truth = task_rows.train_targets(task), read_truth(task)
    rows = np.unique(np.linspace(0, len(targets) - 1, min(len(targets), MAX_FITTED_ROWS)).astype(int))
    train, test = task_rows.row_features(task, "train", rows), task_rows.row_features(task, "test")
    names = [name for name in train.columns if name in test.columns]
    if not names:
        raise NotApplicableError(
            "train.csv and test.csv share no column, and their rows have no arrays or files"
        )
    scored = truth.public | truth.private
    test = test.iloc[task_rows.positions(task, truth.row_of)][scored]
    baseline = _uninformed_score(task, truth.values[scored])
    gains = {}
    for name in names:
        x_train, x_test = _encode_feature(train[name], test[name], targets[rows])
        model = _tree(task).fit(x_train, _squeeze(targets[rows]))
        predicted = model.predict(x_test).reshape(len(x_test), -1)
        gains[name] = _gain(task, truth.values[scored], _adjusted(task, predicted, targets), baseline)
    name = max(gains, key=lambda key: gains[key])
    return _at_most(f"best single feature, {name}", gains[name], MAX_SINGLE_FEATURE)


def _input_as_answer(task: Task) -> Check:
    truth = read_truth(task)
    inputs = [
        (name, array) for name, array in task_rows.arrays(task, "test") if array.shape[1:] == truth.row_shape
    ]
    if not inputs:
        raise NotApplicableError(f"no input array has the shape of {task.target_array}")
    baseline = _uninformed_score(task, truth.values)
    gains = {
        name: _gain(task, truth.values, array.reshape(len(array), -1).astype(float), baseline)
        for name, array in inputs
    }
    name = max(gains, key=lambda key: gains[key])
    return _at_most(f"input as the answer, {name}", gains[name], MAX_SINGLE_FEATURE)


def by_position(task: Task) -> Check:
    """How well the labels of the public rows predict those of the private rows next to them in the file."""
    truth = read_truth(task)
    positions = np.array(task_rows.positions(task, truth.row_of))[:, None]
    public, private = truth.values[truth.public], truth.values[truth.private]
    model = _neighbours(task, len(public)).fit(positions[truth.public], _squeeze(public))
    predicted = model.predict(positions[truth.private]).reshape(len(private), -1)
    baseline = _uninformed_score(task, private)
    gain = _gain(task, private, _adjusted(task, predicted, public), baseline)
    return _at_most("order of rows", gain, MAX_BY_POSITION)


def _at_most(name: str, gain: float, limit: float) -> Check:
    return Check(
        name, gain <= limit, f"{gain:.0%} of the way from an uninformed guess to m_best, at most {limit:.0%}"
    )


def _gain(task: Task, truth: Values, predicted: Values, baseline: float) -> float:
    """Where the score of these predictions lies between `baseline` (0) and m_best (1)."""
    return (METRICS[task.metric].score(truth, predicted) - baseline) / (task.m_best - baseline)


def _uninformed_score(task: Task, truth: Values) -> float:
    """The best score of a guess that uses only how often each value occurs."""
    metric = METRICS[task.metric]
    guesses = [np.random.default_rng(0).permutation(truth)]
    if task.predicts_text:
        guesses.append(np.tile(pd.DataFrame(truth).mode().iloc[0].to_numpy(dtype=str), (len(truth), 1)))
    else:
        centres = (truth.mean(axis=0), np.median(truth, axis=0))
        guesses += [np.tile(_adjusted(task, centre), (len(truth), 1)) for centre in centres]
    scores = [metric.score(truth, guess) for guess in guesses]
    return max(scores) if metric.higher_is_better else min(scores)


def _adjusted(task: Task, predicted: np.ndarray, known: Values | None = None) -> np.ndarray:
    """Rounded where the metric takes whole numbers; for log loss, shrunk, as one sure and wrong answer costs all.

    known: targets [m, t] of other rows, towards whose mean predictions are shrunk.
    """
    if METRICS[task.metric].prediction is Prediction.WHOLE:
        return np.round(predicted)
    if task.metric == "log_loss" and known is not None:
        return 0.95 * predicted + 0.05 * known.mean(axis=0)
    return predicted


def _encode_feature(
    train: pd.Series, test: pd.Series, target: Values
) -> tuple[Float[np.ndarray, "n 1"], Float[np.ndarray, "m 1"]]:
    """One feature as numbers: words become their rank by mean target in the training rows, unseen words -1."""
    if not all(pd.api.types.is_numeric_dtype(column) for column in (train, test)):
        train, test = (column.astype(object).fillna("").astype(str) for column in (train, test))
        codes = pd.Series(pd.factorize(target[:, 0], sort=True)[0])
        ranked = codes.groupby(train.to_numpy()).mean().rank(method="first")
        train, test = train.map(ranked), test.map(ranked)
    # A tree works in float32.
    x_train, x_test = (
        column.fillna(-1).to_numpy(float).clip(-1e30, 1e30)[:, None] for column in (train, test)
    )
    return x_train, x_test


def _tree(task: Task) -> Any:
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    return (DecisionTreeClassifier if task.predicts_text else DecisionTreeRegressor)(min_samples_leaf=10)


def _neighbours(task: Task, rows: int) -> Any:
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

    return (KNeighborsClassifier if task.predicts_text else KNeighborsRegressor)(
        n_neighbors=min(25, max(1, rows // 4))
    )


def _squeeze(targets: Values) -> np.ndarray:
    """[n] if there is one target, as scikit-learn expects it, else [n, t]."""
    return targets[:, 0] if targets.shape[1] == 1 else targets

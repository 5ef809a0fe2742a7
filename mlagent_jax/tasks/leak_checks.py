"""Checks that nothing gives a task's answers away: labels in sight, shared rows, one telling feature, the order."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from mlagent_jax.grading.labels import array_path, read_truth
from mlagent_jax.grading.metrics import METRICS, Prediction
from mlagent_jax.tasks import rows as task_rows
from mlagent_jax.tasks.rows import NotApplicableError, as_text
from mlagent_jax.tasks.task import Task

MOST_BY_ONE_FEATURE = 0.8  # of the way from knowing nothing to m_best
MOST_BY_POSITION = 0.1
MOST_SHARED = 0.01  # of the test rows, where the split is the source's and not ours to mend
MOST_FITTED = 20_000  # training rows that are looked at for one telling feature


@dataclass(frozen=True)
class Check:
    """One finding. passed: None if the check does not apply to the task. detail: figures, as "public / private"."""

    name: str
    passed: bool | None
    detail: str


def leak_checks(task: Task) -> Iterator[Check]:
    """Every check of this file: each found something, found nothing, or says why it does not apply."""
    yield hidden_labels(task)
    for name, find in (
        ("rows in both train and test", shared_rows),
        ("best single feature", best_single_feature),
        ("order of rows", by_position),
    ):
        yield applied(name, partial(find, task))


def applied(name: str, find: Callable[[], Check]) -> Check:
    """What `find` finds, or that and why it does not apply."""
    try:
        return find()
    except NotApplicableError as error:
        return Check(name, None, f"not applicable because {error}")


def hidden_labels(task: Task) -> Check:
    """What a sandbox mounts must hold no test label: no labels file, no target column, no target array."""
    mounted = task.data_dir.parent
    asked = set(read_truth(task).row_of)
    shown: set[str] = set()
    for path in task.data_dir.rglob("*.csv"):
        if path == task.data_dir / "train.csv":
            continue
        rows = pd.read_csv(path, dtype=str, keep_default_na=False)
        telling = [*task.target_columns, task_rows.label_column(task, rows)]
        if path.name.startswith("test") or not asked.isdisjoint(rows.get(task.id_column, ())):
            shown |= {name for name in telling if name is not None and name in rows}
    if task.target_array:
        shown |= {path.name for path in task.data_dir.rglob(f"test_{task.target_array}.npy")}
    labels = [task.labels_path, *([array_path(task.labels_path)] if task.target_array else [])]
    sizes, hidden = {path.stat().st_size for path in labels}, {path.read_bytes() for path in labels}
    files = (path for path in task.data_dir.rglob("*") if path.is_file() and path.stat().st_size in sizes)
    shown |= {path.name for path in files if path.read_bytes() in hidden}
    outside = not any(path.resolve().is_relative_to(mounted.resolve()) for path in labels)
    return Check("labels out of sight", outside and not shown, ", ".join(sorted(shown)) or "none mounted")


def shared_rows(task: Task) -> Check:
    """No test row's features may stand in the training data, nor a text that differs by signs or links only."""
    train, test = (set(task_rows.read_part(task, part).columns) for part in ("train", "test"))
    names = sorted((train & test) - {task.id_column, *task.target_columns})
    keys = task_rows.row_keys(task, "test", names)
    shared = int(np.isin(keys, task_rows.row_keys(task, "train", names)).sum())
    if _split_here(task):
        return Check("rows in both train and test", shared == 0, str(shared))
    return Check(
        "rows in both train and test",
        shared <= MOST_SHARED * len(keys),
        f"{shared} of {len(keys):,}, by the source's split; at most {MOST_SHARED:.0%}",
    )


def _split_here(task: Task) -> bool:
    """Whether rows were made distinct and split by `splitting`, which counts those that it dropped."""
    manifest = task.data_dir.parent.parent / "manifests" / f"{task.data_dir.name}.json"
    return "dropped_as_duplicates" in json.loads(manifest.read_text())["rows"]


def best_single_feature(task: Task) -> Check:
    """How far one column or pixel alone, the id, or a file's size or name gets from nothing (0) to m_best (1).

    Of a target array: how far an input array gets that is handed in as it is.
    """
    if task.target_array:
        return _input_as_answer(task)
    targets, truth = task_rows.train_targets(task), read_truth(task)
    rows = np.unique(np.linspace(0, len(targets) - 1, min(len(targets), MOST_FITTED)).astype(int))
    train, test = task_rows.columns(task, "train", rows), task_rows.columns(task, "test")
    names = [name for name in train.columns if name in test.columns]
    if not names:
        raise NotApplicableError(
            "train.csv and test.csv share no column, and their rows have no arrays or files"
        )
    scored = truth.public | truth.private
    test = test.iloc[task_rows.places(task, truth.row_of)][scored]
    start = _knowing_nothing(task, truth.values[scored])
    ways = {}
    for name in names:
        known, unknown = _as_numbers(train[name], test[name], targets[rows])
        model = _tree(task).fit(known, _one_or_more(targets[rows]))
        predicted = model.predict(unknown).reshape(len(unknown), -1)
        ways[name] = _way(task, truth.values[scored], _moderated(task, predicted, targets), start)
    name = max(ways, key=lambda key: ways[key])
    return _little(f"best single feature, {name}", ways[name], MOST_BY_ONE_FEATURE)


def _input_as_answer(task: Task) -> Check:
    truth = read_truth(task)
    inputs = [
        (name, array) for name, array in task_rows.arrays(task, "test") if array.shape[1:] == truth.row_shape
    ]
    if not inputs:
        raise NotApplicableError(f"no input array has the shape of {task.target_array}")
    start = _knowing_nothing(task, truth.values)
    ways = {
        name: _way(task, truth.values, array.reshape(len(array), -1).astype(float), start)
        for name, array in inputs
    }
    name = max(ways, key=lambda key: ways[key])
    return _little(f"input as the answer, {name}", ways[name], MOST_BY_ONE_FEATURE)


def by_position(task: Task) -> Check:
    """How far the labels of the public rows tell those of the private rows beside them in the file."""
    truth = read_truth(task)
    places = np.array(task_rows.places(task, truth.row_of))[:, None]
    public, private = truth.values[truth.public], truth.values[truth.private]
    model = _neighbours(task, len(public)).fit(places[truth.public], _one_or_more(public))
    predicted = model.predict(places[truth.private]).reshape(len(private), -1)
    start = _knowing_nothing(task, private)
    way = _way(task, private, _moderated(task, predicted, public), start)
    return _little("order of rows", way, MOST_BY_POSITION)


def _little(name: str, way: float, most: float) -> Check:
    return Check(
        name, way <= most, f"{way:.0%} of the way from knowing nothing to m_best, at most {most:.0%}"
    )


def _way(task: Task, truth: np.ndarray, predicted: np.ndarray, start: float) -> float:
    """Where `predicted` [n, t] lies between `start` (0) and m_best (1)."""
    return (METRICS[task.metric].score(truth, predicted) - start) / (task.m_best - start)


def _knowing_nothing(task: Task, truth: np.ndarray) -> float:
    """The best score on `truth` [n, t] of one who knew how often each value occurs, and nothing else."""
    metric = METRICS[task.metric]
    guesses = [np.random.default_rng(0).permutation(truth)]
    if as_text(task):
        guesses.append(np.tile(pd.DataFrame(truth).mode().iloc[0].to_numpy(dtype=str), (len(truth), 1)))
    else:
        middles = (truth.mean(axis=0), np.median(truth, axis=0))
        guesses += [np.tile(_moderated(task, middle), (len(truth), 1)) for middle in middles]
    scores = [metric.score(truth, guess) for guess in guesses]
    return max(scores) if metric.higher_is_better else min(scores)


def _moderated(task: Task, predicted: np.ndarray, known: np.ndarray | None = None) -> np.ndarray:
    """Whole where the metric wants that; less than sure where one sure answer that is wrong costs all.

    known: targets [m, t] of other rows, whose mean is mixed in.
    """
    if METRICS[task.metric].prediction is Prediction.WHOLE:
        return np.round(predicted)
    if task.metric == "log_loss" and known is not None:
        return 0.95 * predicted + 0.05 * known.mean(axis=0)
    return predicted


def _as_numbers(train: pd.Series, test: pd.Series, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One feature as [n, 1]; words become ranks by the targets they came with, unseen ones -1."""
    if not all(pd.api.types.is_numeric_dtype(column) for column in (train, test)):
        train, test = (column.astype(object).fillna("").astype(str) for column in (train, test))
        codes = pd.Series(pd.factorize(target[:, 0], sort=True)[0])
        ranked = codes.groupby(train.to_numpy()).mean().rank(method="first")
        train, test = train.map(ranked), test.map(ranked)
    # A tree takes what fits into 32 bits.
    known, asked = (column.fillna(-1).to_numpy(float).clip(-1e30, 1e30)[:, None] for column in (train, test))
    return known, asked


def _tree(task: Task) -> Any:
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    return (DecisionTreeClassifier if as_text(task) else DecisionTreeRegressor)(min_samples_leaf=10)


def _neighbours(task: Task, rows: int) -> Any:
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

    return (KNeighborsClassifier if as_text(task) else KNeighborsRegressor)(
        n_neighbors=min(25, max(1, rows // 4))
    )


def _one_or_more(targets: np.ndarray) -> np.ndarray:
    """[n] where there is one target, as scikit-learn wants it, else [n, t]."""
    return targets[:, 0] if targets.shape[1] == 1 else targets

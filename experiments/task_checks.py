"""Checks that a task is fit to learn from: it has headroom, grading means something, nothing leaks."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlagent_jax.environment.grading import Graded, grade
from mlagent_jax.environment.labels import array_path, read_truth
from mlagent_jax.environment.metrics import METRICS
from mlagent_jax.environment.task import Task
from mlagent_jax.sandbox.interface import Job, Limits, Sandbox

REFERENCE_LIMITS = Limits(wall_seconds=300.0, cpu_seconds=150, memory_mb=4096)
LEAST_HEADROOM = 0.2  # of the starter's distance from a perfect score, that the reference does away with
MOST_BY_ONE_FEATURE = 0.8  # of the way from knowing nothing to m_best
MOST_BY_POSITION = 0.1
LONG_TEXT = 30  # characters on average: words and signs count, not the exact text
TOLERANCE = 0.05  # of the way from m_init to m_best, between machines and library versions


@dataclass(frozen=True)
class Check:
    """One finding. detail: figures, as "public / private" where there are two."""

    name: str
    passed: bool
    detail: str


def check_task(task: Task, reference: Path, sandbox: Sandbox) -> Iterator[Check]:
    """Runs the starter, then `reference` if there is one, then looks for leaks.

    What is compared row by row needs train.csv and test.csv, as tasks have that are split here.
    """
    check, m_init = _run("starter", task.starter, task, task.limits, sandbox)
    yield check
    if m_init is None:
        return
    if task.m_init is not None:
        yield _recorded(task, m_init)
    if reference.is_file():
        check, strong = _run("reference", reference.read_text(), task, REFERENCE_LIMITS, sandbox)
        yield check
        if strong is not None:
            yield _headroom(task, m_init, strong)
    yield _worse("true labels, shuffled", task, shuffled_submission(task), m_init)
    yield hidden_labels(task)
    if not all((task.data_dir / f"{part}.csv").is_file() for part in ("train", "test")):
        return  # laid out by its source: there is no common form in which to look for the rest
    yield _worse("constant submission", task, constant_submission(task), m_init)
    yield shared_rows(task)
    yield best_single_feature(task)
    yield by_position(task)


def check_micro(task: Task, sandbox: Sandbox) -> Iterator[Check]:
    """Runs the starter; the rest has been checked of the full task."""
    yield _run("starter", task.starter, task, task.limits, sandbox)[0]
    yield hidden_labels(task)
    yield shared_rows(task)


def _run(name: str, script: str, task: Task, limits: Limits, sandbox: Sandbox) -> tuple[Check, Graded | None]:
    job = Job({"train.py": script.encode()}, "train.py", task.data_dir, task.data_digest, limits)
    result = sandbox.run(job)
    graded = grade(task, result.files.get(task.submission))
    if not isinstance(graded, Graded):
        return Check(name, False, f"{result.status}: {graded.reason} {result.output[-500:]}"), None
    detail = f"{_figures(graded)} in {result.wall_seconds:.2f} s, {result.peak_memory_mb:.0f} MB"
    return Check(name, True, detail), graded


def _recorded(task: Task, m_init: Graded) -> Check:
    """The starter must score what the task says that it scores."""
    assert task.m_init is not None
    close = abs(m_init.public - task.m_init) <= TOLERANCE * abs(task.m_best - task.m_init)
    return Check("m_init", close, f"starter {m_init.public:.4f}, recorded {task.m_init}")


def _headroom(task: Task, m_init: Graded, strong: Graded) -> Check:
    """The reference must beat the starter by a margin on both splits, and score m_best."""
    perfect = METRICS[task.metric].best
    pairs = ((m_init.public, strong.public), (m_init.private, strong.private))
    gained = min(1 - abs(perfect - after) / abs(perfect - before) for before, after in pairs)
    close = abs(strong.public - task.m_best) <= TOLERANCE * abs(task.m_best - m_init.public)
    return Check(
        "headroom",
        gained >= LEAST_HEADROOM and close,
        f"reference {_figures(strong)}, m_best {task.m_best}; {gained:.0%} nearer to perfect than the starter,"
        f" at least {LEAST_HEADROOM:.0%}",
    )


def _worse(name: str, task: Task, submission: bytes, m_init: Graded) -> Check:
    graded = grade(task, submission)
    if not isinstance(graded, Graded):
        return Check(name, False, graded.reason)
    passed = METRICS[task.metric].better(m_init.public, graded.public) and METRICS[task.metric].better(
        m_init.private, graded.private
    )
    return Check(name, passed, f"{_figures(graded)}, starter {_figures(m_init)}")


def constant_submission(task: Task) -> bytes:
    """The best guess without features: the most frequent class, or the median, of the training rows."""
    if task.target_array:
        shown = np.load(task.data_dir / f"train_{task.target_array}.npy")
        return _npy(np.full((len(read_truth(task).values), *shown.shape[1:]), np.median(shown)))
    targets = list(task.target_columns)
    train = _read(task, "train.csv")[targets]
    guess = train.mode().iloc[0] if task.over_classes else train.median()
    test = _read(task, "test.csv")
    frame = pd.DataFrame({task.id_column: test[task.id_column], **{t: guess[t] for t in targets}})
    return frame.to_csv(index=False).encode()


def shuffled_submission(task: Task) -> bytes:
    """The held-out labels themselves, given to the wrong rows."""
    if task.target_array:
        array = np.load(array_path(task.labels_path))
        return _npy(array[np.random.default_rng(0).permutation(len(array))])
    labels = pd.read_csv(task.labels_path)
    targets = list(task.target_columns)
    order = np.random.default_rng(0).permutation(len(labels))
    labels[targets] = labels[targets].to_numpy()[order]
    return labels[[task.id_column, *targets]].to_csv(index=False).encode()


def hidden_labels(task: Task) -> Check:
    """What a sandbox mounts must hold no test label: no labels file, no target column, no target array."""
    mounted = task.data_dir.parent
    shown = {
        name
        for path in mounted.glob(f"{task.data_dir.name}/**/test*.csv")
        for name in pd.read_csv(path, nrows=0).columns
        if name in task.target_columns
    }
    if task.target_array:
        shown |= {path.name for path in task.data_dir.rglob(f"test_{task.target_array}.npy")}
    labels = [task.labels_path, *([array_path(task.labels_path)] if task.target_array else [])]
    hidden = {path.read_bytes() for path in labels}
    shown |= {
        path.name for path in task.data_dir.rglob("*") if path.is_file() and path.read_bytes() in hidden
    }
    outside = not any(path.resolve().is_relative_to(mounted.resolve()) for path in labels)
    return Check("labels out of sight", outside and not shown, ", ".join(sorted(shown)) or "none mounted")


def shared_rows(task: Task) -> Check:
    """No test row's features may stand in the training data, nor a text that differs by signs or links only."""
    train, test = _row_keys(task, "train"), _row_keys(task, "test")
    shared = len(set(train) & set(test))
    return Check("rows in both train and test", shared == 0, str(shared))


def best_single_feature(task: Task) -> Check:
    """How far one column or pixel alone, or the id, gets from nothing (0) to m_best (1).

    Of a target array: how far an input array gets that is handed in as it is.
    """
    if task.target_array:
        return _input_as_answer(task)
    train, test = _columns(task, "train"), _columns(task, "test")
    target = _targets(task)
    truth = read_truth(task)
    order = [truth.row_of[str(identity)] for identity in _read(task, "test.csv")[task.id_column]]
    ways = {}
    for name in train.columns:
        fitted, asked = _as_numbers(train[name], test[name], target)
        predicted = np.empty_like(truth.values)
        predicted[order] = (
            _tree(task).fit(fitted, _one_or_more(target)).predict(asked).reshape(len(asked), -1)
        )
        ways[name] = _way(task, METRICS[task.metric].score(truth.values, predicted), truth.values)
    name = max(ways, key=lambda key: ways[key])
    return _little(f"best single feature, {name}", ways[name], MOST_BY_ONE_FEATURE)


def _input_as_answer(task: Task) -> Check:
    truth = read_truth(task)
    ways = {
        name: _way(
            task, METRICS[task.metric].score(truth.values, array.reshape(len(array), -1)), truth.values
        )
        for name, array in _arrays(task, "test")
        if array.shape[1:] == truth.row_shape
    }
    name = max(ways, key=lambda key: ways[key])
    return _little(f"input as the answer, {name}", ways[name], MOST_BY_ONE_FEATURE)


def by_position(task: Task) -> Check:
    """How far the labels of the public rows tell those of the private rows beside them in the file."""
    truth = read_truth(task)
    position_of = {str(identity): i for i, identity in enumerate(_read(task, "test.csv")[task.id_column])}
    rows = np.array([[position_of[identity]] for identity in truth.row_of])
    public, private = truth.public, ~truth.public
    predicted = (
        _neighbours(task, int(public.sum()))
        .fit(rows[public], _one_or_more(truth.values[public]))
        .predict(rows[private])
    )
    score = METRICS[task.metric].score(truth.values[private], predicted.reshape(private.sum(), -1))
    return _little("order of rows", _way(task, score, truth.values[private]), MOST_BY_POSITION)


def _little(name: str, way: float, most: float) -> Check:
    return Check(
        name, way <= most, f"{way:.0%} of the way from knowing nothing to m_best, at most {most:.0%}"
    )


def _way(task: Task, score: float, truth: np.ndarray) -> float:
    """Where `score` lies between the best for `truth` [n, t] of no knowledge at all (0) and m_best (1)."""
    metric = METRICS[task.metric]
    guesses = [np.random.default_rng(0).permutation(truth)]
    if task.over_classes:
        guesses.append(np.tile(pd.DataFrame(truth).mode().iloc[0].to_numpy(dtype=str), (len(truth), 1)))
    else:
        guesses += [
            np.broadcast_to(middle, truth.shape) for middle in (truth.mean(axis=0), np.median(truth, axis=0))
        ]
    scores = [metric.score(truth, guess) for guess in guesses]
    start = max(scores) if metric.higher_is_better else min(scores)
    return (score - start) / (task.m_best - start)


def _columns(task: Task, part: str) -> pd.DataFrame:
    """The visible columns of "train" or "test" (the id too, no targets), and each cell of the arrays."""
    frame = _read(task, f"{part}.csv").drop(columns=list(task.target_columns), errors="ignore")
    cells = [
        pd.DataFrame(array.reshape(len(array), -1)).add_prefix(f"{name} ")
        for name, array in _arrays(task, part)
    ]
    return pd.concat([frame, *cells], axis=1)


def _arrays(task: Task, part: str) -> list[tuple[str, np.ndarray]]:
    return [
        (path.stem.removeprefix(f"{part}_"), np.load(path))
        for path in sorted(task.data_dir.glob(f"{part}_*.npy"))
        if path.stem != f"{part}_{task.target_array}"
    ]


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _as_numbers(train: pd.Series, test: pd.Series, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One feature as [n, 1]; words become ranks by the targets they came with, unseen ones -1."""
    if not pd.api.types.is_numeric_dtype(train):
        codes = pd.Series(pd.factorize(target[:, 0], sort=True)[0])
        ranked = codes.groupby(train.fillna("").to_numpy()).mean().rank(method="first")
        train, test = train.fillna("").map(ranked), test.fillna("").map(ranked)
    return train.fillna(-1).to_numpy(float)[:, None], test.fillna(-1).to_numpy(float)[:, None]


def _tree(task: Task) -> Any:
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    return (DecisionTreeClassifier if task.over_classes else DecisionTreeRegressor)(min_samples_leaf=10)


def _neighbours(task: Task, rows: int) -> Any:
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

    return (KNeighborsClassifier if task.over_classes else KNeighborsRegressor)(
        n_neighbors=min(25, max(1, rows // 4))
    )


def _row_keys(task: Task, part: str) -> list[tuple]:
    frame = _read(task, f"{part}.csv").drop(columns=[task.id_column, *task.target_columns], errors="ignore")
    cells = zip(*(map(np.ndarray.tobytes, array) for _, array in _arrays(task, part)), strict=True)
    for column in frame.select_dtypes(exclude="number").columns:
        text = frame[column].fillna("").astype(str)
        if text.str.len().mean() > LONG_TEXT:
            frame[column] = (
                text.str.lower().replace({r"https?://\S+": "", r"[^a-z0-9]+": " "}, regex=True).str.strip()
            )
    rows = frame.astype(str).itertuples(index=False, name=None)
    if not len(frame.columns):
        return list(cells)
    return list(rows) if not _arrays(task, part) else list(zip(rows, cells, strict=True))


def _targets(task: Task) -> np.ndarray:
    """Training targets [n, t], classes as text."""
    targets = _read(task, "train.csv")[list(task.target_columns)]
    return targets.astype(str).to_numpy(dtype=str) if task.over_classes else targets.to_numpy(float)


def _one_or_more(targets: np.ndarray) -> np.ndarray:
    """[n] where there is one target, as scikit-learn wants it, else [n, t]."""
    return targets[:, 0] if targets.shape[1] == 1 else targets


def _read(task: Task, name: str) -> pd.DataFrame:
    return pd.read_csv(task.data_dir / name)


def _figures(graded: Graded) -> str:
    return f"{graded.public:.4f} / {graded.private:.4f}"

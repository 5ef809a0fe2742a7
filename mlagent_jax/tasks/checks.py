"""Checks that a task is fit to learn from: it has headroom, its grading is meaningful, and no labels leak."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Num

from mlagent_jax.grading.grade import Graded, grade
from mlagent_jax.grading.labels import array_path, read_truth
from mlagent_jax.grading.metrics import MAX_RANKED, METRICS, Prediction, Values
from mlagent_jax.sandbox.interface import Job, Limits, Sandbox
from mlagent_jax.tasks.leak_checks import Check, hidden_labels, leak_checks, run_check, shared_rows
from mlagent_jax.tasks.noise import measure_noise
from mlagent_jax.tasks.rows import NotApplicableError, read_ids, train_targets
from mlagent_jax.tasks.table_bytes import to_npy
from mlagent_jax.tasks.task import Task

REFERENCE_LIMITS = Limits(wall_seconds=300.0, cpu_seconds=150, memory_mb=4096)
MIN_HEADROOM = 0.2  # of the starter's distance from a perfect score, which the reference must close
TOLERANCE = 0.05  # of the way from m_init to m_best, for other machines and library versions


def check_task(task: Task, reference: Path, sandbox: Sandbox) -> Iterator[Check]:
    """Runs the starter, then `reference` if there is such a file, then the leak checks.

    Yields every check; one that does not apply says why. If the starter fails, nothing else is checked.
    """
    check, m_init, submission = _run_script("starter", task.starter, task, task.limits, sandbox)
    yield check
    if m_init is None:
        return
    yield _recorded(task, m_init)
    if reference.is_file():
        check, strong, _ = _run_script("reference", reference.read_text(), task, REFERENCE_LIMITS, sandbox)
        yield check
        if strong is not None:
            yield _headroom(task, m_init, strong)
    else:
        why = f"there is no reference solution {reference}; m_best {task.m_best:g} comes from: {task.m_best_source}"
        yield Check("headroom", None, f"not applicable because {why}")
    yield run_check("noise", lambda: _noise(task, submission, m_init, sandbox))
    yield _worse("true labels, shuffled", task, shuffled_submission(task), m_init)
    yield run_check(
        "constant submission",
        lambda: _worse("constant submission", task, constant_submission(task), m_init),
    )
    yield from leak_checks(task)


def check_micro(task: Task, sandbox: Sandbox) -> Iterator[Check]:
    """Runs the starter and the checks that the small version could fail where the full task does not."""
    yield _run_script("starter", task.starter, task, task.limits, sandbox)[0]
    yield hidden_labels(task)
    yield run_check("rows in both train and test", lambda: shared_rows(task))


def _run_script(
    name: str, script: str, task: Task, limits: Limits, sandbox: Sandbox
) -> tuple[Check, Graded | None, bytes]:
    """Whether the script's submission is valid, its scores, and the submission itself."""
    job = Job({"train.py": script.encode()}, "train.py", task.data_dir, task.data_digest, limits)
    result = sandbox.run(job)
    submission = result.files.get(task.submission)
    graded = grade(task, submission)
    if not isinstance(graded, Graded) or submission is None:
        reason = graded.reason if not isinstance(graded, Graded) else ""
        return Check(name, False, f"{result.status}: {reason} {result.output[-500:]}"), None, b""
    detail = f"{_scores(graded)} in {result.wall_seconds:.2f} s, {result.peak_memory_mb:.0f} MB"
    return Check(name, True, detail), graded, submission


def _recorded(task: Task, m_init: Graded) -> Check:
    """The starter's score must match the recorded m_init."""
    if task.m_init is None:
        return Check("m_init", None, "not applicable because none is recorded")
    if task.m_init_source:
        why = (
            f"the recorded {task.m_init:g} does not come from this starter ({m_init.public:.4f}):"
            f" {task.m_init_source}"
        )
        return Check("m_init", None, f"not applicable because {why}")
    close = abs(m_init.public - task.m_init) <= TOLERANCE * abs(task.m_best - task.m_init)
    return Check("m_init", close, f"starter {m_init.public:.4f}, recorded {task.m_init}")


def _noise(task: Task, submission: bytes, m_init: Graded, sandbox: Sandbox) -> Check:
    """The noise of the starter's score must match the recorded one; the detail has what to record."""
    found, scale = measure_noise(task, submission, m_init.public, sandbox), abs(task.m_best - m_init.public)
    share = found.rows / scale if scale else math.inf
    detail = f"seeds {found.seeds:.3g}, rows {found.rows:.3g} ({share:.1%} of the way to m_best)"
    if task.noise is None:
        return Check("noise", None, f"not applicable because none is recorded; found {detail}")
    pairs = ((found.seeds, task.noise.seeds), (found.rows, task.noise.rows))
    close = all(abs(one - recorded) <= TOLERANCE * scale for one, recorded in pairs)
    return Check("noise", close, f"{detail}, recorded {task.noise.seeds:g} and {task.noise.rows:g}")


def _headroom(task: Task, m_init: Graded, strong: Graded) -> Check:
    """The reference must beat the starter by a margin on both splits, and its public score must match m_best."""
    perfect = METRICS[task.metric].best
    pairs = ((m_init.public, strong.public), (m_init.private, strong.private))
    gained = min(1 - abs(perfect - after) / abs(perfect - before) for before, after in pairs)
    close = abs(strong.public - task.m_best) <= TOLERANCE * abs(task.m_best - m_init.public)
    return Check(
        "headroom",
        gained >= MIN_HEADROOM and close,
        f"reference {_scores(strong)}, m_best {task.m_best}; it closes {gained:.0%} of the starter's distance from a"
        f" perfect score, at least {MIN_HEADROOM:.0%}",
    )


def _worse(name: str, task: Task, submission: bytes, m_init: Graded) -> Check:
    """The submission must score worse than the starter on both splits."""
    graded = grade(task, submission)
    if not isinstance(graded, Graded):
        return Check(name, False, graded.reason)
    passed = METRICS[task.metric].is_better(m_init.public, graded.public) and METRICS[task.metric].is_better(
        m_init.private, graded.private
    )
    return Check(name, passed, f"{_scores(graded)}, starter {_scores(m_init)}")


def constant_submission(task: Task) -> bytes:
    """The best guess without features: the most frequent class of the training rows, or their mean or median.

    Raises NotApplicableError.
    """
    if task.target_array:
        path = task.data_dir / f"train_{task.target_array}.npy"
        if not path.is_file():
            raise NotApplicableError(f"there is no {path.name} in data/")
        train = np.load(path)
        return to_npy(np.full((len(read_truth(task).values), *train.shape[1:]), np.median(train)))
    targets, ids = train_targets(task), read_ids(task)
    guess = pd.DataFrame([_constant(task, targets)] * len(ids), columns=list(task.target_columns))
    return guess.assign(**{task.id_column: ids}).to_csv(index=False).encode()


def _constant(task: Task, targets: Values) -> Num[np.ndarray, " t"] | list[str]:
    """The best constant prediction for these training targets."""
    metric = METRICS[task.metric]
    if task.predicts_text:
        ranks = MAX_RANKED if metric.prediction is Prediction.RANKING else 1
        return [" ".join(pd.Series(targets[:, 0]).value_counts().index[:ranks])]
    guesses = [targets.mean(axis=0), np.median(targets, axis=0)]
    if metric.prediction is Prediction.WHOLE:
        guesses = [np.round(guess).astype(int) for guess in guesses]
    scores = [metric.score(targets, np.tile(guess, (len(targets), 1))) for guess in guesses]
    return guesses[1] if metric.is_better(scores[1], scores[0]) else guesses[0]


def shuffled_submission(task: Task) -> bytes:
    """The held-out labels, assigned to the wrong rows."""
    if task.target_array:
        array = np.load(array_path(task.labels_path))
        return to_npy(array[np.random.default_rng(0).permutation(len(array))])
    labels = pd.read_csv(task.labels_path, dtype=str, keep_default_na=False)
    targets = list(task.target_columns)
    order = np.random.default_rng(0).permutation(len(labels))
    labels[targets] = labels[targets].to_numpy()[order]
    return labels[[task.id_column, *targets]].to_csv(index=False).encode()


def _scores(graded: Graded) -> str:
    return f"{graded.public:.4f} / {graded.private:.4f}"

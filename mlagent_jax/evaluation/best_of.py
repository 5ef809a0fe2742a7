"""best@k: the score that the best of k episodes is expected to have (the paper's figure 8 goes to k = 128).

The mean over all sets of k of an agent's n episodes, which is the unbiased estimator (Chen et al. 2021, arXiv
2107.03374, equation 1, for scores in place of passes). The largest of n scores alone estimates best@n, and no other k.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mlagent_jax.agent.trajectory import Trajectory
from mlagent_jax.evaluation.gains import normalised_gain, relative_gain


def expected_best(scores: Sequence[float], k: int, *, higher_is_better: bool) -> float:
    """The mean of the best score over all sets of k of the scores, (n,).

    The i-th worst score (i from 1) is the best of C(i - 1, k - 1) of the C(n, k) sets. Raises ValueError unless
    1 <= k <= n.
    """
    n = len(scores)
    if not 1 <= k <= n:
        raise ValueError(f"the best of {k} episodes cannot be estimated from {n}")
    ordered = np.sort(np.asarray(scores, np.float64))  # the worst first
    if not higher_is_better:
        ordered = ordered[::-1]
    # C(i - 1, k - 1) / C(n, k) from i = n downwards, where it is k / n; each is a fraction of the one before.
    weight, best = k / n, 0.0
    for i in range(n, k - 1, -1):
        best += weight * ordered[i - 1]
        weight *= (i - k) / (i - 1) if i > 1 else 0.0
    return float(best)


def split_best_of(
    split: str, facts: Mapping[str, Mapping[str, Any]], episodes: Mapping[str, Sequence[Trajectory]]
) -> dict[str, Any]:
    """Mean gains of the best of k episodes over the split's tasks, for k = 1, 2, 4, ... and all episodes.

    k goes to the number of episodes that every task has. A gain is None as in `split_means`. facts: the "tasks" of
    `scores.json`. episodes: the agent's by task, none masked.
    """
    names = [name for name, task in facts.items() if task["split"] == split]
    n = min((len(episodes.get(name, ())) for name in names), default=0)
    ks = sorted({2**power for power in range(n.bit_length())} | {n}) if n else []
    curve: dict[str, Any] = {"split": split, "k": ks, "relative_gain": None, "normalised_gain": None}
    if not ks:
        return curve
    best = {
        name: [
            expected_best(
                [each.private_score for each in episodes[name]],
                k,
                higher_is_better=facts[name]["higher_is_better"],
            )
            for k in ks
        ]
        for name in names
    }
    # Gains are linear in the score, so the gain of an expected score is the expected gain.
    relative = [
        [
            relative_gain(score, facts[name]["m_init"], higher_is_better=facts[name]["higher_is_better"])
            for score in best[name]
        ]
        for name in names
    ]
    normalised = [
        [normalised_gain(score, facts[name]["m_init"], facts[name]["m_best"]) for score in best[name]]
        for name in names
    ]
    return curve | {"relative_gain": _mean(relative), "normalised_gain": _mean(normalised)}


def _mean(gains: Sequence[Sequence[float | None]]) -> list[float] | None:
    """Over tasks; None if a task has no gain."""
    known = [[gain for gain in of_task if gain is not None] for of_task in gains]
    complete = all(len(of_task) == len(given) for of_task, given in zip(known, gains, strict=True))
    return np.mean(known, axis=0).tolist() if complete else None

"""Selects a diverse subset by either of the two published rules, using cosine distances.

Version 1 of the paper keeps the 10 ideas with the largest mean distance to all others. Version 2 keeps K ideas for each
axis by farthest-point sampling (arXiv 2505.23723, section 4.1 of either version). Version 1 can select a tight cluster
of outliers; version 2 cannot.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Real

Embeddings = Real[np.ndarray, "n d"]


def cosine_distances(embeddings: Embeddings) -> Float[np.ndarray, "n n"]:
    """Pairwise 1 - cosine similarity. A zero row has distance 1 to every other row."""
    embeddings = np.asarray(embeddings, np.float64)
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    units = embeddings / np.where(norms > 0, norms, 1.0)
    distances = np.clip(1.0 - units @ units.T, 0.0, 2.0)
    np.fill_diagonal(distances, 0.0)
    return distances


def top_by_mean_distance(embeddings: Embeddings, k: int) -> list[int]:
    """Indices of the k rows with the largest mean distance to the other rows, farthest first; ties by index.

    Raises ValueError if k exceeds n.
    """
    _check(len(embeddings), k)
    means = cosine_distances(embeddings).sum(axis=1) / max(len(embeddings) - 1, 1)
    return np.argsort(-means, kind="stable")[:k].tolist()


def farthest_point(embeddings: Embeddings, k: int, start: int | None = None) -> list[int]:
    """Greedy k-centre selection (Gonzalez 1985): each next row is the one farthest from those already selected.

    start: index of the first row; by default the one with the largest mean distance. Ties go to the lower index.
    Returns k distinct indices in the order of selection. Raises ValueError if k exceeds n or `start` is out of range.
    """
    _check(len(embeddings), k)
    if k == 0:
        return []
    if start is None:
        start = top_by_mean_distance(embeddings, 1)[0]
    if not 0 <= start < len(embeddings):
        raise ValueError(f"start is {start}, but there are {len(embeddings)} ideas to choose from")
    distances = cosine_distances(embeddings)
    chosen = [start]
    nearest = distances[start].copy()
    for _ in range(k - 1):
        nearest[chosen] = -1.0  # a duplicate of a chosen row is still eligible, the row itself is not
        chosen.append(int(np.argmax(nearest)))
        nearest = np.minimum(nearest, distances[chosen[-1]])
    return chosen


def _check(n: int, k: int) -> None:
    if not 0 <= k <= n:
        raise ValueError(f"asked to keep {k} ideas out of {n}; write more candidates or keep fewer")

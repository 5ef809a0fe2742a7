"""Choosing a diverse few out of many: both published rules, over cosine distances.

Version 1 of the paper keeps the 10 ideas with the largest mean distance to all others; version 2 keeps K per
axis by farthest-point sampling (arXiv 2505.23723, section 4.1 of either version). The first can pick a tight
cluster of outliers; the second cannot.
"""

from __future__ import annotations

import numpy as np


def cosine_distances(embeddings: np.ndarray) -> np.ndarray:
    """Pairwise 1 - cosine similarity: (n, d) -> (n, n). A zero row is at distance 1 from every other row."""
    embeddings = np.asarray(embeddings, np.float64)
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    units = embeddings / np.where(norms > 0, norms, 1.0)
    distances = np.clip(1.0 - units @ units.T, 0.0, 2.0)
    np.fill_diagonal(distances, 0.0)
    return distances


def top_by_mean_distance(embeddings: np.ndarray, k: int) -> list[int]:
    """The k rows of (n, d) with the largest mean distance to the other rows, farthest first; ties by index.

    Raises ValueError if k exceeds n.
    """
    _check(len(embeddings), k)
    means = cosine_distances(embeddings).sum(axis=1) / max(len(embeddings) - 1, 1)
    return np.argsort(-means, kind="stable")[:k].tolist()


def farthest_point(embeddings: np.ndarray, k: int, start: int | None = None) -> list[int]:
    """Greedy k-centre choice (Gonzalez 1985): each next row is the one farthest from those already chosen.

    start: index of the first row; by default that with the largest mean distance. Ties: lower index.
    Returns k distinct indices in the order chosen. Raises ValueError if k exceeds n or `start` is no row.
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
        nearest[chosen] = -1.0  # duplicates of a chosen row are still eligible, the row itself is not
        chosen.append(int(np.argmax(nearest)))
        nearest = np.minimum(nearest, distances[chosen[-1]])
    return chosen


def _check(n: int, k: int) -> None:
    if not 0 <= k <= n:
        raise ValueError(f"asked to keep {k} ideas out of {n}; write more candidates or keep fewer")

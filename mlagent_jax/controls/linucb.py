"""LinUCB with disjoint linear models (Li, Chu, Langford and Schapire 2010, arXiv 1003.0146, algorithm 1)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float


class LinUCB:
    """A ridge regression of the reward on the context, for each arm of its own.

    alpha: how many standard deviations above its mean an arm is judged while it is explored. ridge: of the regression.
    """

    def __init__(self, arms: int, features: int, alpha: float, ridge: float) -> None:
        self._alpha = alpha
        # A^-1 of each arm, renewed by the formula of Sherman and Morrison.
        self._inverse = np.tile(np.eye(features) / ridge, (arms, 1, 1))
        self._b = np.zeros((arms, features))
        self.pulls = np.zeros(arms, np.int64)

    @property
    def weights(self) -> Float[np.ndarray, "arms features"]:
        """theta = A^-1 b of each arm; zeros for one that was never pulled."""
        weights: np.ndarray = np.einsum("aij,aj->ai", self._inverse, self._b)
        return weights

    def choose(
        self, context: Float[np.ndarray, " features"], arms: Sequence[int], rng: np.random.Generator
    ) -> int:
        """One of `arms`, at least one, with the highest upper confidence bound; ties are broken at random."""
        shuffled = rng.permutation(np.asarray(arms))
        inverse = self._inverse[shuffled]
        mean = np.einsum("aij,aj,i->a", inverse, self._b[shuffled], context)
        variance = np.einsum("i,aij,j->a", context, inverse, context)
        return int(shuffled[np.argmax(mean + self._alpha * np.sqrt(variance))])

    def update(self, arm: int, context: Float[np.ndarray, " features"], reward: float) -> None:
        scaled = self._inverse[arm] @ context
        self._inverse[arm] -= np.outer(scaled, scaled) / (1 + context @ scaled)
        self._b[arm] += reward * context
        self.pulls[arm] += 1

"""Estimators of KL(pi || reference) from tokens of pi (Schulman, "Approximating KL divergence", 2020)."""

from __future__ import annotations

import numpy as np
from jax import Array
from jaxtyping import Float


def kl_estimate(
    logprobs: Float[Array | np.ndarray, "*tokens"],
    reference: Float[Array | np.ndarray, "*tokens"],
    estimator: str,
) -> Float[Array | np.ndarray, "*tokens"]:
    """The estimate for each token. With d = log pi - log reference:

    k1 = d, unbiased, of either sign; k2 = d^2 / 2, biased, of low variance; k3 = e^-d - 1 + d, unbiased, never
    negative. In a loss, only k2 has the gradient of the KL itself, d * grad log pi. The gradient of k1 is that of log
    pi alone, which is 0 on average; the gradient of k3 is that of the reverse KL. Raises ValueError for another
    estimator.
    """
    difference = logprobs - reference
    xp = difference.__array_namespace__()  # NumPy for metrics, which need not be compiled
    if estimator == "k1":
        return difference
    if estimator == "k2":
        return 0.5 * difference**2
    if estimator == "k3":
        return xp.expm1(-difference) + difference
    raise ValueError(f"KL estimator {estimator!r} is not one of k1, k2, k3")

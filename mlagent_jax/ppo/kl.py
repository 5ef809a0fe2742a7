"""Estimators of KL(pi || reference) from tokens of pi (Schulman, "Approximating KL divergence", 2020)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np


def kl_estimate(
    logprobs: jax.Array | np.ndarray, reference: jax.Array | np.ndarray, estimator: str
) -> jax.Array:
    """Per token, any shape. With d = log pi - log reference:

    k1 = d, unbiased, of either sign; k2 = d^2 / 2, biased, low variance; k3 = e^-d - 1 + d, unbiased, never
    negative. In a loss, only k2 has the gradient of the KL itself, d * grad log pi; k1's is that of pi's
    log-prob alone, which is 0 on average, and k3's is the gradient of the reverse KL.
    """
    difference = jnp.asarray(logprobs - reference)
    if estimator == "k1":
        return difference
    if estimator == "k2":
        return 0.5 * jnp.square(difference)
    if estimator == "k3":
        return jnp.expm1(-difference) + difference
    raise ValueError(f"KL estimator {estimator!r} is none of k1, k2, k3")

"""PPO's losses (arXiv 1707.06347), token by token, and the weights with which they are summed.

What metrics need too is computed by the library of its arrays: JAX would compile each operation anew for each number of
tokens that an update has.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int

Tokens = Float[Array | np.ndarray, "*tokens"]  # one number for each token; any shape
_MAX_LOG_RATIO = 20.0  # as in verl: beyond it exp might overflow, and the clipped loss has no gradient anyway


def policy_loss(
    logprobs: Tokens,
    old_logprobs: Tokens,
    advantages: Tokens,
    clip_low: float,
    clip_high: float,
    dual_clip: float = 0.0,
) -> Float[Array, "*tokens"]:
    """-min(r A, clip(r, 1 - low, 1 + high) A) with r = pi / pi_old, for each token.

    dual_clip: c > 1 bounds the loss of tokens with A < 0 by -c A (arXiv 1912.09729, equation 5); 0 for none.
    """
    ratio = probability_ratio(logprobs, old_logprobs)
    clipped = jnp.clip(ratio, 1.0 - clip_low, 1.0 + clip_high)
    loss = -jnp.minimum(ratio * advantages, clipped * advantages)
    if dual_clip:
        loss = jnp.where(advantages < 0, jnp.minimum(loss, -dual_clip * advantages), loss)
    return loss


def probability_ratio(logprobs: Tokens, old_logprobs: Tokens) -> Float[Array, "*tokens"]:
    """pi / pi_old, for each token."""
    difference = logprobs - old_logprobs
    xp = difference.__array_namespace__()
    return xp.exp(xp.clip(difference, -_MAX_LOG_RATIO, _MAX_LOG_RATIO))


def clipped_tokens(
    logprobs: Tokens,
    old_logprobs: Tokens,
    advantages: Tokens,
    clip_low: float,
    clip_high: float,
    dual_clip: float = 0.0,
) -> tuple[Bool[Array, "*tokens"], Bool[Array, "*tokens"]]:
    """Where `policy_loss` of the same arguments is clipped: by the ratio's range, and by `dual_clip`.

    Their means are verl's `pg_clipfrac` and `pg_clipfrac_lower`.
    """
    ratio = probability_ratio(logprobs, old_logprobs)
    xp = ratio.__array_namespace__()
    unclipped = -ratio * advantages
    clipped = -xp.clip(ratio, 1.0 - clip_low, 1.0 + clip_high) * advantages
    lower = (advantages < 0) & (xp.maximum(unclipped, clipped) > -dual_clip * advantages)
    return clipped > unclipped, lower & bool(dual_clip)


def value_loss(values: Tokens, old_values: Tokens, returns: Tokens, clip: float) -> Float[Array, "*tokens"]:
    """Half the squared error of each token's value.

    With `clip` > 0, the larger of this and the same for the value clipped to within `clip` of the old one.
    """
    error = jnp.square(values - returns)
    if clip:
        clipped = old_values + jnp.clip(values - old_values, -clip, clip)
        error = jnp.maximum(error, jnp.square(clipped - returns))
    return 0.5 * error


def clipped_values(
    values: Tokens, old_values: Tokens, returns: Tokens, clip: float
) -> Bool[Array, "*tokens"]:
    """Where `value_loss` of the same arguments uses the clipped value; the mean is verl's `vf_clipfrac`."""
    difference = values - old_values
    clipped = old_values + difference.__array_namespace__().clip(difference, -clip, clip)
    return ((clipped - returns) ** 2 > (values - returns) ** 2) & bool(clip)


def token_weights(
    mask: Bool[np.ndarray, "B T"], action_lengths: Int[np.ndarray, "B T"], aggregation: str
) -> Float[np.ndarray, "B T"]:
    """Float32 weights that sum to 1 over a minibatch: weighted sums over its micro-batches add up to its mean.

    mask: the tokens that count. action_lengths: how many such tokens there are in each token's action. Raises
    ValueError for another aggregation.
    """
    if aggregation == "token_mean":
        weights = mask.astype(np.float64)
    elif aggregation == "action_mean":
        weights = np.where(mask, 1.0 / np.maximum(action_lengths, 1), 0.0)
    else:
        raise ValueError(f"aggregation {aggregation!r} is neither token_mean nor action_mean")
    return (weights / max(weights.sum(), 1e-9)).astype(np.float32)

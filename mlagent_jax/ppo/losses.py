"""PPO's losses (arXiv 1707.06347), token by token; what they are summed with is the caller's `weights`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

Floats = jax.Array | np.ndarray
_MAX_LOG_RATIO = 20.0  # as in verl: beyond it exp might overflow, and the clipped loss has no gradient anyway


def policy_loss(
    logprobs: jax.Array,
    old_logprobs: jax.Array,
    advantages: jax.Array,
    clip_low: float,
    clip_high: float,
    dual_clip: float = 0.0,
) -> jax.Array:
    """-min(r A, clip(r, 1 - low, 1 + high) A) with r = pi / pi_old, per token, any shape.

    dual_clip: c > 1 bounds the loss of tokens with A < 0 by -c A (arXiv 1912.09729, equation 5); 0 for none.
    """
    ratio = probability_ratio(logprobs, old_logprobs)
    clipped = jnp.clip(ratio, 1.0 - clip_low, 1.0 + clip_high)
    loss = -jnp.minimum(ratio * advantages, clipped * advantages)
    if dual_clip:
        loss = jnp.where(advantages < 0, jnp.minimum(loss, -dual_clip * advantages), loss)
    return loss


def probability_ratio(logprobs: Floats, old_logprobs: Floats) -> jax.Array:
    """pi / pi_old, per token, any shape."""
    return jnp.exp(jnp.clip(logprobs - old_logprobs, -_MAX_LOG_RATIO, _MAX_LOG_RATIO))


def clipped_tokens(
    logprobs: Floats,
    old_logprobs: Floats,
    advantages: Floats,
    clip_low: float,
    clip_high: float,
    dual_clip: float = 0.0,
) -> tuple[jax.Array, jax.Array]:
    """Where `policy_loss` of the same arguments is bounded, bools of any shape: by the range, and by `dual_clip`.

    Their means are verl's `pg_clipfrac` and `pg_clipfrac_lower`.
    """
    ratio = probability_ratio(logprobs, old_logprobs)
    free = -ratio * advantages
    ranged = -jnp.clip(ratio, 1.0 - clip_low, 1.0 + clip_high) * advantages
    lower = jnp.logical_and(advantages < 0, jnp.maximum(free, ranged) > -dual_clip * advantages)
    return ranged > free, lower & bool(dual_clip)


def value_loss(values: jax.Array, old_values: jax.Array, returns: jax.Array, clip: float) -> jax.Array:
    """Half the squared error; with `clip` > 0 the larger of it and that of a value within `clip` of the
    old.
    """
    error = jnp.square(values - returns)
    if clip:
        near = old_values + jnp.clip(values - old_values, -clip, clip)
        error = jnp.maximum(error, jnp.square(near - returns))
    return 0.5 * error


def clipped_values(values: Floats, old_values: Floats, returns: Floats, clip: float) -> jax.Array:
    """Where `value_loss` of the same arguments takes the bounded value, bools; their mean is verl's `vf_clipfrac`."""
    near = old_values + jnp.clip(values - old_values, -clip, clip)
    return (jnp.square(near - returns) > jnp.square(values - returns)) & bool(clip)


def token_weights(mask: np.ndarray, action_lengths: np.ndarray, aggregation: str) -> np.ndarray:
    """Float32 weights that sum to 1 over a whole minibatch, so that a sum over any split of it is the mean.

    mask: bool [R,T], tokens that count. action_lengths: int [R,T], such tokens in the action that each is
        part of.
    """
    if aggregation == "token_mean":
        weights = mask.astype(np.float64)
    elif aggregation == "action_mean":
        weights = np.where(mask, 1.0 / np.maximum(action_lengths, 1), 0.0)
    else:
        raise ValueError(f"aggregation {aggregation!r} is neither token_mean nor action_mean")
    return (weights / max(weights.sum(), 1e-9)).astype(np.float32)

"""Generalised advantage estimation (arXiv 1506.02438) over packed rows."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Real


def generalised_advantages(
    rewards: Real[Array, "B T"],
    values: Real[Array, "B T"],
    mask: Bool[Array, "B T"],
    dones: Bool[Array, "B T"],
    gamma: float,
    lam: float,
) -> tuple[Float[Array, "B T"], Float[Array, "B T"]]:
    """Advantages and returns (advantage + value), float32, 0 outside of `mask`.

    mask: action tokens; all other positions are skipped, as if they did not exist. rewards, values: read at action
    tokens only. dones: action tokens that end a trajectory, after which value and advantage are 0.

    delta_t = r_t + gamma * V_{t+1} - V_t;  A_t = delta_t + gamma * lam * A_{t+1}, where t counts action tokens.
    """

    def back(later: tuple[Array, Array], now: tuple[Array, ...]) -> tuple[tuple[Array, Array], Array]:
        next_value, next_advantage = later
        reward, value, acts, end = now
        continues = 1.0 - end
        delta = reward + gamma * continues * next_value - value
        advantage = delta + gamma * lam * continues * next_advantage
        later = (jnp.where(acts, value, next_value), jnp.where(acts, advantage, next_advantage))
        return later, jnp.where(acts, advantage, 0.0)

    # Always float32: integer rewards would make integer advantages.
    rewards, values = rewards.astype(jnp.float32), values.astype(jnp.float32)
    zeros = jnp.zeros(rewards.shape[0], jnp.float32)
    by_time = tuple(array.T for array in (rewards, values, mask, dones.astype(jnp.float32)))
    by_time_advantages: Array
    _, by_time_advantages = jax.lax.scan(back, (zeros, zeros), by_time, reverse=True)
    advantages = by_time_advantages.T
    return advantages, jnp.where(mask, advantages + values, 0.0)

"""Generalised advantage estimation (arXiv 1506.02438) over packed rows."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def generalised_advantages(
    rewards: jax.Array, values: jax.Array, mask: jax.Array, ends: jax.Array, gamma: float, lam: float
) -> tuple[jax.Array, jax.Array]:
    """Advantages and returns (advantage + value), float32 [B,T], 0 outside of `mask`.

    rewards, values: float [B,T] at action tokens. mask: bool [B,T], action tokens; time passes over all
    others as if they were not there. ends: bool [B,T], action tokens after which nothing more is to come.

    delta_t = r_t + gamma * V_{t+1} - V_t;  A_t = delta_t + gamma * lam * A_{t+1}, t counting action tokens.
    """

    def back(later: tuple[jax.Array, jax.Array], now: tuple[jax.Array, ...]) -> tuple:
        next_value, next_advantage = later
        reward, value, acts, end = now
        going_on = 1.0 - end
        delta = reward + gamma * going_on * next_value - value
        advantage = delta + gamma * lam * going_on * next_advantage
        later = (jnp.where(acts, value, next_value), jnp.where(acts, advantage, next_advantage))
        return later, jnp.where(acts, advantage, 0.0)

    # float32 whatever comes in: integer rewards would make integer advantages.
    rewards, values = rewards.astype(jnp.float32), values.astype(jnp.float32)
    nothing = jnp.zeros(rewards.shape[0], jnp.float32)
    by_time = tuple(array.T for array in (rewards, values, mask, ends.astype(jnp.float32)))
    backwards: jax.Array
    _, backwards = jax.lax.scan(back, (nothing, nothing), by_time, reverse=True)
    advantages = backwards.T
    return advantages, jnp.where(mask, advantages + values, 0.0)

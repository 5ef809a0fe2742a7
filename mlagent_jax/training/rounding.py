"""Stochastic rounding to bfloat16 (Zamirai et al. 2020, arXiv 2010.06192)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import BFloat16, Float32, Key

_DROPPED_BITS = 16  # of a float32, which bfloat16 does not have


def round_stochastically(x: Float32[Array, "*shape"], key: Key[Array, ""]) -> BFloat16[Array, "*shape"]:
    """One of the two bfloat16 neighbours of each number, the nearer one more likely, so that the expectation is x.

    Rounding to the nearest would lose every update below half a unit in the last place; this keeps it on average.
    Numbers that are not finite stay as they are.
    """
    noise = jax.random.bits(key, x.shape, jnp.uint16).astype(jnp.uint32)
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32) + noise
    rounded = jax.lax.bitcast_convert_type(bits >> _DROPPED_BITS << _DROPPED_BITS, jnp.float32)
    return jnp.where(jnp.isfinite(x), rounded, x).astype(jnp.bfloat16)

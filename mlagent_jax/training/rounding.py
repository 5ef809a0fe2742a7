"""Stochastic rounding to bfloat16 (Zamirai et al. 2020, arXiv 2010.06192)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

_DROPPED = 16  # bits of a float32 that bfloat16 does not have


def round_stochastically(x: jax.Array, key: jax.Array) -> jax.Array:
    """x float32 -> bfloat16: one of the two neighbours, the nearer one likelier, so that the mean is x.

    An update below half a unit in the last place would never arrive by rounding to the nearest; this way it does on
    average. What is not finite stays as it is.
    """
    noise = jax.random.bits(key, x.shape, jnp.uint16).astype(jnp.uint32)
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32) + noise
    whole = jax.lax.bitcast_convert_type(bits >> _DROPPED << _DROPPED, jnp.float32)
    return jnp.where(jnp.isfinite(x), whole, x).astype(jnp.bfloat16)

"""Rotary position embeddings (Su et al. 2021, arXiv 2104.09864), in Hugging Face's half-split layout."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int


def rope_tables(
    positions: Int[Array, "*B"], head_dim: int, theta: float
) -> tuple[Float32[Array, "*B {head_dim//2}"], Float32[Array, "*B {head_dim//2}"]]:
    """cos and sin of position * theta^(-2i/H), where H is `head_dim`."""
    frequencies = theta ** (-jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
    angles = positions[..., None].astype(jnp.float32) * frequencies
    return jnp.cos(angles), jnp.sin(angles)


def apply_rope(
    x: Float[Array, "*B heads H"], cos: Float[Array, "*B H//2"], sin: Float[Array, "*B H//2"]
) -> Float[Array, "*B heads H"]:
    """Rotates each head of x; computed in float32, returned in x's dtype."""
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    cos, sin = cos[..., None, :], sin[..., None, :]
    rotated = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return rotated.astype(x.dtype)

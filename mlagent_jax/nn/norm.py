"""Root-mean-square normalisation (Zhang & Sennrich 2019, arXiv 1910.07467)."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def rms_norm(x: jax.Array, scale: jax.Array, eps: float) -> jax.Array:
    """x [..., D], scale [D] -> [..., D] in x's dtype; the mean is in float32, as in Hugging Face's Qwen2."""
    x32 = x.astype(jnp.float32)
    x32 = x32 * jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + eps)
    return scale.astype(x.dtype) * x32.astype(x.dtype)

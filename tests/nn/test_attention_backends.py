"""Backends for other hardware compute what "xla" computes; here as far as a CPU can say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlagent_jax.nn.attention import plain_attention
from mlagent_jax.nn.splash_attention import splash_attention


@pytest.mark.parametrize("T, N, K", [(128, 2, 2), (200, 4, 2)])
def test_splash_equals_xla(T, N, K):
    rng = np.random.default_rng(0)
    B, H = 2, 128
    q, k, v = (jnp.asarray(rng.normal(size=(B, T, heads, H)), jnp.float32) for heads in (N, K, K))
    segments = np.zeros((B, T), np.int32)
    segments[0, :50], segments[0, 50:120] = 1, 2  # packed, then padding
    segments[1, 30:] = 1  # padding first
    weights = jnp.asarray(rng.normal(size=(B, T, N, H)), jnp.float32)

    def loss(attend):
        return lambda q, k, v: jnp.sum(weights * attend(q, k, v, jnp.asarray(segments)))

    def interpreted(*args):
        return splash_attention(*args, interpret=True)

    np.testing.assert_allclose(
        interpreted(q, k, v, segments), plain_attention(q, k, v, segments), rtol=1e-4, atol=1e-5
    )
    ours = jax.jit(jax.grad(loss(interpreted), argnums=(0, 1, 2)))(q, k, v)
    theirs = jax.jit(jax.grad(loss(plain_attention), argnums=(0, 1, 2)))(q, k, v)
    for name, a, b in zip("qkv", ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4, err_msg=name)

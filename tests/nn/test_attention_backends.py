"""Backends for other hardware compute the same as "xla", as far as this can be tested on a CPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlagent_jax.nn import splash_attention as splash_module
from mlagent_jax.nn.attention import plain_attention
from mlagent_jax.nn.splash_attention import splash_attention


@pytest.mark.parametrize(
    ("T", "N", "K", "block"),
    [
        (128, 2, 2, 512),
        (200, 4, 2, 512),
        (300, 2, 1, 128),
    ],  # one block; one block of padded rows; three blocks
)
def test_splash_equals_xla(monkeypatch, T, N, K, block):
    monkeypatch.setattr(splash_module, "_BLOCK", block)
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


def test_splash_over_several_blocks_in_bfloat16_accumulates_in_float32(monkeypatch):
    """Rows of three blocks: the error is that of rounding queries and result, not of sums in bfloat16."""
    monkeypatch.setattr(splash_module, "_BLOCK", 128)
    rng = np.random.default_rng(0)
    q, k, v = (jnp.asarray(rng.normal(size=(1, 384, 1, 128)), jnp.bfloat16) for _ in range(3))
    segments = jnp.ones((1, 384), jnp.int32)
    exact = plain_attention(*(x.astype(jnp.float32) for x in (q, k, v)), segments)

    def noise(found):
        return float(jnp.sqrt(jnp.mean((found.astype(jnp.float32) - exact) ** 2)))

    once = noise(exact.astype(jnp.bfloat16))
    assert noise(splash_attention(q, k, v, segments, interpret=True)) < 1.5 * once
    weights = jax.nn.softmax(
        jnp.where(jnp.tri(384, dtype=bool), jnp.einsum("bqnh,bsnh->bnqs", q, k) * 128**-0.5, -jnp.inf)
    )
    assert weights.dtype == jnp.bfloat16
    assert noise(jnp.einsum("bnqs,bsnh->bqnh", weights, v)) > 2 * once, (
        "sums in bfloat16 would exceed the bound"
    )

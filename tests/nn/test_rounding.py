"""Norms, rotations, attention and logits of bfloat16 inputs are computed in float32 and rounded once, at the end.

They are compared with NumPy in float64 on the same inputs: the error is that of rounding the exact result. Other tests
compute each of them, or a part of it, in bfloat16, to show that the bound can fail.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlagent_jax.models.value_head import values
from mlagent_jax.nn import attention as attention_module
from mlagent_jax.nn import chunked_attention as chunked_module
from mlagent_jax.nn import losses
from mlagent_jax.nn.attention import plain_attention
from mlagent_jax.nn.chunked_attention import chunked_attention
from mlagent_jax.nn.linear import linear
from mlagent_jax.nn.losses import token_logprobs
from mlagent_jax.nn.norm import rms_norm
from mlagent_jax.nn.precision import AS_WRITTEN
from mlagent_jax.nn.rope import apply_rope, rope_tables

MOST = 1.02  # times the error of one rounding
RNG = np.random.default_rng(0)


def bfloat16(*shape, scale=1.0):
    return jnp.asarray(scale * RNG.normal(size=shape), jnp.bfloat16)


def rounded(x):
    """x, rounded to bfloat16 in a way that XLA cannot remove."""
    return jax.lax.reduce_precision(x, 8, 7)


def exact(x):
    return np.asarray(x, np.float64)


def noise(function, expected, *args):
    """Root mean square of the errors, as a multiple of that of rounding the exact result; 1 is ideal."""
    found = jax.jit(lambda *a: function(*a), compiler_options=AS_WRITTEN)(
        *args
    )  # a new function, so that it is traced again
    assert found.dtype == jnp.bfloat16
    once = exact(jnp.asarray(expected, jnp.bfloat16)) - expected
    return np.sqrt(np.mean((exact(found) - expected) ** 2) / np.mean(once**2))


X = bfloat16(64, 512, scale=3.0)
ONES = jnp.ones(512, jnp.bfloat16)
NORMALISED = exact(X) / np.sqrt((exact(X) ** 2).mean(-1, keepdims=True) + 1e-6)


def test_norm():
    assert noise(lambda x: rms_norm(x, ONES, 1e-6), NORMALISED, X) < MOST


def test_norm_in_bfloat16_would_fail():
    def wrong(x):
        return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + jnp.bfloat16(1e-6))

    assert noise(wrong, NORMALISED, X) > 1.2


HEADS = bfloat16(1, 64, 2, 32)
POSITIONS = np.arange(3000, 3064)[None]
ANGLES = POSITIONS[..., None, None] * 1e6 ** (-np.arange(0, 32, 2) / 32)
FIRST, SECOND = np.split(exact(HEADS), 2, axis=-1)
ROTATED = np.concatenate(
    [
        FIRST * np.cos(ANGLES) - SECOND * np.sin(ANGLES),
        SECOND * np.cos(ANGLES) + FIRST * np.sin(ANGLES),
    ],
    axis=-1,
)


def rotate(x, cast):
    return apply_rope(x, *(cast(table) for table in rope_tables(jnp.asarray(POSITIONS), 32, 1e6)))


def test_rotation():
    assert noise(lambda x: rotate(x, lambda table: table), ROTATED, HEADS) < MOST


def test_rotation_by_tables_in_bfloat16_would_fail():
    assert noise(lambda x: rotate(x, rounded), ROTATED, HEADS) > 1.2


def test_rotation_by_positions_in_bfloat16_would_fail():
    def wrong(x):
        frequencies = 1e6 ** (-jnp.arange(0, 32, 2) / 32)
        angles = rounded(jnp.asarray(POSITIONS, jnp.float32))[..., None] * frequencies
        return apply_rope(x, jnp.cos(angles), jnp.sin(angles))

    assert noise(wrong, ROTATED, HEADS) > 10


T = 96
QUERIES, KEYS, VALUES = bfloat16(1, T, 4, 16, scale=3.0), bfloat16(1, T, 2, 16), bfloat16(1, T, 2, 16)
SEGMENTS = np.ones((1, T), np.int32)


def exact_attention():
    q, k, v = exact(QUERIES)[0], *(np.repeat(exact(x)[0], 2, axis=1) for x in (KEYS, VALUES))
    scores = np.einsum("qnh,snh->nqs", q, k) / 4
    scores = np.where(np.tri(T, dtype=bool), scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("nqs,snh->qnh", weights / weights.sum(-1, keepdims=True), v)[None]


BACKENDS = {
    "xla": lambda q, k, v: plain_attention(q, k, v, SEGMENTS),
    "xla_chunked": lambda q, k, v: chunked_attention(q, k, v, SEGMENTS, 32),
}


@pytest.mark.parametrize("backend", BACKENDS)
def test_attention(backend):
    assert noise(BACKENDS[backend], exact_attention(), QUERIES, KEYS, VALUES) < MOST


class InBfloat16:
    """`jax.numpy` with one function whose results are rounded."""

    def __init__(self, name):
        self._name = name

    def __getattr__(self, name):
        function = getattr(jnp, name)
        return (lambda *a, **k: rounded(function(*a, **k))) if name == self._name else function


@pytest.mark.parametrize("part", ["exp", "where", "sum"])  # weights, scores, normaliser
def test_attention_with_a_part_in_bfloat16_would_fail(monkeypatch, part):
    monkeypatch.setattr(chunked_module, "jnp", InBfloat16(part))
    assert noise(BACKENDS["xla_chunked"], exact_attention(), QUERIES, KEYS, VALUES) > 1.04


@pytest.mark.parametrize(
    "part", ["where", "einsum"]
)  # scores; scores and context, which is rounded in any case
def test_plain_attention_with_a_part_in_bfloat16_would_fail(monkeypatch, part):
    monkeypatch.setattr(attention_module, "jnp", InBfloat16(part))
    assert noise(BACKENDS["xla"], exact_attention(), QUERIES, KEYS, VALUES) > 1.04


HIDDEN, UNEMBED = bfloat16(1, 20, 64), bfloat16(64, 300)
TARGETS = RNG.integers(0, 300, (1, 20))


def logprob_error():
    # A new function, so that it is traced again.
    run = jax.jit(lambda *a: token_logprobs(*a), compiler_options=AS_WRITTEN)
    found, entropy = run(HIDDEN, UNEMBED, TARGETS)
    logits = exact(HIDDEN) @ exact(UNEMBED)
    logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
    assert found.dtype == entropy.dtype == jnp.float32
    return np.abs(found - np.take_along_axis(logits, TARGETS[..., None], -1)[..., 0]).max()


def test_log_probs_are_float32(monkeypatch):
    assert logprob_error() < 1e-4
    monkeypatch.setattr(losses, "jnp", InBfloat16("einsum"))
    assert logprob_error() > 1e-2


def test_values_are_float32():
    head = {"kernel": jnp.asarray(RNG.normal(size=64), jnp.float32), "bias": jnp.float32(0.1)}
    found = values(head, HIDDEN)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, exact(HIDDEN) @ exact(head["kernel"]) + 0.1, rtol=1e-5, atol=1e-5)


def test_a_product_of_bfloat16_can_be_float32():
    x, kernel = bfloat16(2, 5, 32), bfloat16(32, 8)
    found = jax.jit(lambda x, k: linear(x, k, jnp.float32))(x, kernel)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, exact(x) @ exact(kernel), rtol=1e-5, atol=1e-5)
    one = jax.jit(lambda x, k: linear(x, k, jnp.float32))(x[:1, :1], kernel)
    np.testing.assert_allclose(one, found[:1, :1], rtol=1e-5, atol=1e-5)
    dx, dk = jax.jit(jax.grad(lambda x, k: linear(x, k, jnp.float32).sum(), argnums=(0, 1)))(x, kernel)
    assert dx.dtype == dk.dtype == jnp.bfloat16
    np.testing.assert_allclose(exact(dk), exact(x).sum((0, 1))[:, None].repeat(8, 1), rtol=2**-7, atol=1e-2)

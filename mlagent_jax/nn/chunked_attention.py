"""Causal attention a block of queries at a time, with the backward pass written out.

What FlashAttention-2 (Dao 2023, arXiv 2307.08691) does for a GPU's memory, arranged for XLA's CPU matrix products: keys
after a block's last query are skipped, only the row normalisers are kept for the backward pass, and every product is
written so that XLA need not transpose a matrix of scores to compute it. On two cores this is about as fast as
torch's kernel, where the plain formulation is five times slower.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

# Under this name every backend's results go by for policies of rematerialisation.
SAVED = "attention"

_MASKED = -1e30  # finite, so that masked scores never make NaNs; exp of it is 0

# Saved for the backward pass: q [B,K,G,T,H] scaled, k and v [B,K,T,H], segment_ids, output [B,K,G,T,H] and its
# logarithmic normaliser [B,K,G,T,1]. G = N/K query heads share a key head.
_Residuals = tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def chunked_attention(
    q: jax.Array, k: jax.Array, v: jax.Array, segment_ids: jax.Array, chunk: int
) -> jax.Array:
    """q [B,T,N,H], k and v [B,T,K,H], segment_ids [B,T] int, chunk queries at a time -> [B,T,N,H].

    Scores, softmax and what its weights are multiplied with are float32, as in the generation engine.
    """
    return _forward(q, k, v, segment_ids, chunk)[0]


def _forward(
    q: jax.Array, k: jax.Array, v: jax.Array, segment_ids: jax.Array, chunk: int
) -> tuple[jax.Array, _Residuals]:
    B, T, N, H = q.shape
    K = k.shape[2]
    q = (q * H**-0.5).reshape(B, T, K, N // K, H).transpose(0, 2, 3, 1, 4)
    k, v = k.swapaxes(1, 2), v.swapaxes(1, 2)
    outputs, normalisers = [], []
    for queries, keys in _blocks(T, chunk):
        scores = _scores(q[:, :, :, queries], k[:, :, keys], segment_ids, queries, keys)
        peak = jnp.max(scores, axis=-1, keepdims=True)
        weights = jnp.exp(scores - peak)
        total = jnp.sum(weights, axis=-1, keepdims=True)
        rows = _product(_fold(weights), v[:, :, keys].astype(weights.dtype))
        outputs.append(_unfold(rows, queries) / total)
        normalisers.append(peak + jnp.log(total))
    output = jnp.concatenate(outputs, axis=3).astype(v.dtype)
    output = checkpoint_name(output, SAVED)
    normaliser = checkpoint_name(jnp.concatenate(normalisers, axis=3), SAVED)
    residuals = (q, k, v, segment_ids, output, normaliser)
    return output.transpose(0, 3, 1, 2, 4).reshape(B, T, N, H), residuals


def _backward(
    chunk: int, residuals: _Residuals, grad: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, None]:
    q, k, v, segment_ids, output, normalisers = residuals
    B, K, G, T, H = q.shape
    grad = grad.reshape(B, T, K, G, H).transpose(0, 2, 3, 1, 4)
    # sum_j weight_ij * dweight_ij, without the weights: Dao 2023, section 3.1.
    drift = jnp.sum((grad * output).astype(jnp.float32), axis=-1, keepdims=True)
    dq, dk_transposed, dv_transposed = [], [], []
    for queries, keys in _blocks(T, chunk):
        q_rows, grad_rows = q[:, :, :, queries], grad[:, :, :, queries]
        scores = _scores(q_rows, k[:, :, keys], segment_ids, queries, keys)
        weights = jnp.exp(scores - normalisers[:, :, :, queries])
        dweights = _unfold(_product_transposed(_fold(grad_rows), v[:, :, keys]), queries)
        dscores = _fold((weights * (dweights - drift[:, :, :, queries])).astype(q.dtype))
        dq.append(_unfold(_product(dscores, k[:, :, keys]), queries))
        # As [H, keys], so that the large operand is used as it lies and only the small result is transposed.
        dk_transposed.append(_product(_fold(q_rows).swapaxes(2, 3), dscores))
        dv_transposed.append(_product(_fold(grad_rows).swapaxes(2, 3), _fold(weights.astype(v.dtype))))
    dq_whole = (jnp.concatenate(dq, axis=3) * H**-0.5).transpose(0, 3, 1, 2, 4).reshape(B, T, K * G, H)
    dk, dv = (
        _sum_prefixes(parts, T, chunk).transpose(0, 3, 1, 2) for parts in (dk_transposed, dv_transposed)
    )
    return dq_whole.astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype), None


chunked_attention.defvjp(_forward, _backward)


def _blocks(T: int, chunk: int) -> list[tuple[slice, slice]]:
    """Each block's queries, and the keys that any of them may see."""
    stops = [min(start + chunk, T) for start in range(0, T, chunk)]
    return [
        (slice(start, stop), slice(0, stop)) for start, stop in zip(range(0, T, chunk), stops, strict=True)
    ]


def _scores(q: jax.Array, k: jax.Array, segment_ids: jax.Array, queries: slice, keys: slice) -> jax.Array:
    """q [B,K,G,Q,H], k [B,K,S,H] -> masked scores [B,K,G,Q,S] float32."""
    scores = _unfold(_product_transposed(_fold(q), k), queries)
    causal = jnp.arange(queries.start, queries.stop)[:, None] >= jnp.arange(keys.stop)
    same = segment_ids[:, queries, None] == segment_ids[:, None, keys]
    return jnp.where((causal & same)[:, None, None], scores, _MASKED)


def _fold(x: jax.Array) -> jax.Array:
    """[B,K,G,Q,X] -> [B,K,G*Q,X]: query heads that share keys are rows of one product."""
    return x.reshape(*x.shape[:2], -1, x.shape[-1])


def _unfold(x: jax.Array, queries: slice) -> jax.Array:
    """[B,K,G*Q,X] -> [B,K,G,Q,X]"""
    return x.reshape(*x.shape[:2], -1, queries.stop - queries.start, x.shape[-1])


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    """[B,K,m,n] @ [B,K,n,p] -> [B,K,m,p], accumulated in float32."""
    return jax.lax.dot_general(a, b, (((3,), (2,)), ((0, 1), (0, 1))), preferred_element_type=jnp.float32)


def _product_transposed(a: jax.Array, b: jax.Array) -> jax.Array:
    """[B,K,m,n] @ [B,K,p,n]^T -> [B,K,m,p]; the small operand is the one that is transposed."""
    return _product(a, b.swapaxes(2, 3))


def _sum_prefixes(parts: list[jax.Array], T: int, chunk: int) -> jax.Array:
    """Adds parts [B,K,H,S_i], each a prefix of the T keys, into [B,K,H,T]."""
    blocks = []
    for start in range(0, T, chunk):
        stop = min(start + chunk, T)
        blocks.append(sum(part[..., start:stop] for part in parts if part.shape[-1] >= stop))
    return jnp.concatenate(blocks, axis=-1)

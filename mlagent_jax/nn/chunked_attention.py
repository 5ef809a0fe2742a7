"""Causal attention over one block of queries at a time, with a handwritten backward pass.

This is FlashAttention-2 (Dao 2023, arXiv 2307.08691), arranged for XLA's matrix products on a CPU rather than for a
GPU's memory. Keys after a block's last query are skipped. Only the row normalisers are kept for the backward pass.
Every product is written so that XLA need not transpose a matrix of scores to compute it. On two cores this is about as
fast as torch's kernel, where the plain formulation is five times slower.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Float32, Int

from mlagent_jax.nn.masks import MASK_VALUE, causal_segment_mask

# The name by which rematerialisation policies find the results of attention, whatever the backend.
CHECKPOINT_NAME = "attention"

# Saved for the backward pass: q [B,K,G,T,H] scaled, k and v [B,K,T,H], segment_ids [B,T], output [B,K,G,T,H] and the
# logarithm of its normaliser [B,K,G,T,1]. G = N/K query heads share a key head.
_Residuals = tuple[Array, Array, Array, Array, Array, Array]


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def chunked_attention(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B T K H"],
    v: Float[Array, "B T K H"],
    segment_ids: Int[Array, "B T"],
    chunk: int,
) -> Float[Array, "B T N H"]:
    """chunk: queries per block.

    Scores, softmax and the product of its weights with the values are float32, as in the generation engine.
    """
    return _forward(q, k, v, segment_ids, chunk)[0]


def _forward(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B T K H"],
    v: Float[Array, "B T K H"],
    segment_ids: Int[Array, "B T"],
    chunk: int,
) -> tuple[Float[Array, "B T N H"], _Residuals]:
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
    output = checkpoint_name(output, CHECKPOINT_NAME)
    normaliser = checkpoint_name(jnp.concatenate(normalisers, axis=3), CHECKPOINT_NAME)
    residuals = (q, k, v, segment_ids, output, normaliser)
    return output.transpose(0, 3, 1, 2, 4).reshape(B, T, N, H), residuals


def _backward(
    chunk: int, residuals: _Residuals, grad: Float[Array, "B T N H"]
) -> tuple[Float[Array, "B T N H"], Float[Array, "B T K H"], Float[Array, "B T K H"], None]:
    q, k, v, segment_ids, output, normalisers = residuals
    B, K, G, T, H = q.shape
    grad = grad.reshape(B, T, K, G, H).transpose(0, 2, 3, 1, 4)
    # sum_j weight_ij * dweight_ij, without the weights: Dao 2023, section 3.1.
    delta = jnp.sum((grad * output).astype(jnp.float32), axis=-1, keepdims=True)
    dq, dk_transposed, dv_transposed = [], [], []
    for queries, keys in _blocks(T, chunk):
        q_rows, grad_rows = q[:, :, :, queries], grad[:, :, :, queries]
        scores = _scores(q_rows, k[:, :, keys], segment_ids, queries, keys)
        weights = jnp.exp(scores - normalisers[:, :, :, queries])
        dweights = _unfold(_product_transposed(_fold(grad_rows), v[:, :, keys]), queries)
        dscores = _fold((weights * (dweights - delta[:, :, :, queries])).astype(q.dtype))
        dq.append(_unfold(_product(dscores, k[:, :, keys]), queries))
        # As [H, keys]: the large operand is used in the layout it has, and only the small result is transposed.
        dk_transposed.append(_product(_fold(q_rows).swapaxes(2, 3), dscores))
        dv_transposed.append(_product(_fold(grad_rows).swapaxes(2, 3), _fold(weights.astype(v.dtype))))
    dq_whole = (jnp.concatenate(dq, axis=3) * H**-0.5).transpose(0, 3, 1, 2, 4).reshape(B, T, K * G, H)
    dk, dv = (
        _sum_prefixes(parts, T, chunk).transpose(0, 3, 1, 2) for parts in (dk_transposed, dv_transposed)
    )
    return dq_whole.astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype), None


chunked_attention.defvjp(_forward, _backward)


def _blocks(T: int, chunk: int) -> list[tuple[slice, slice]]:
    """The queries of each block, and the keys that at least one of them may attend to."""
    stops = [min(start + chunk, T) for start in range(0, T, chunk)]
    return [
        (slice(start, stop), slice(0, stop)) for start, stop in zip(range(0, T, chunk), stops, strict=True)
    ]


def _scores(
    q: Float[Array, "B K G Q H"],
    k: Float[Array, "B K S H"],
    segment_ids: Int[Array, "B T"],
    queries: slice,
    keys: slice,
) -> Float32[Array, "B K G Q S"]:
    """Masked."""
    scores = _unfold(_product_transposed(_fold(q), k), queries)
    mask = causal_segment_mask(segment_ids, queries, keys)
    return jnp.where(mask[:, None, None], scores, MASK_VALUE)


def _fold(x: Float[Array, "B K G Q X"]) -> Float[Array, "B K G*Q X"]:
    """Query heads that share keys become rows of one product."""
    return x.reshape(*x.shape[:2], -1, x.shape[-1])


def _unfold(x: Float[Array, "B K GQ X"], queries: slice) -> Float[Array, "B K G Q X"]:
    """The inverse of `_fold`."""
    return x.reshape(*x.shape[:2], -1, queries.stop - queries.start, x.shape[-1])


def _product(a: Float[Array, "B K m n"], b: Float[Array, "B K n p"]) -> Float32[Array, "B K m p"]:
    return jax.lax.dot_general(a, b, (((3,), (2,)), ((0, 1), (0, 1))), preferred_element_type=jnp.float32)


def _product_transposed(a: Float[Array, "B K m n"], b: Float[Array, "B K p n"]) -> Float32[Array, "B K m p"]:
    """a @ b^T; b is the small operand, and the one that is transposed."""
    return _product(a, b.swapaxes(2, 3))


def _sum_prefixes(parts: list[Array], T: int, chunk: int) -> Float32[Array, "B K H {T}"]:
    """Sums `parts` [B,K,H,S_i], each over the first S_i of the T keys."""
    blocks = []
    for start in range(0, T, chunk):
        stop = min(start + chunk, T)
        blocks.append(sum(part[..., start:stop] for part in parts if part.shape[-1] >= stop))
    return jnp.concatenate(blocks, axis=-1)

"""Causal self-attention within segments, behind one switch.

All backends compute the same function: token i attends to token j of its row when j <= i and both carry the
same segment id. Padding has a segment id of its own (0), so it attends to padding only and stays finite.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mlagent_jax.nn.chunked_attention import chunked_attention

BACKENDS = ("xla", "xla_chunked")
PLANNED_BACKENDS = ("cudnn", "splash")


def check_backend(name: str) -> None:
    """Raises ValueError for an unknown backend, NotImplementedError for one that is named but not built."""
    if name in PLANNED_BACKENDS:
        raise NotImplementedError(
            f"attention backend {name!r} is not implemented yet; use one of {', '.join(BACKENDS)}"
        )
    if name not in BACKENDS:
        raise ValueError(f"unknown attention backend {name!r}; choose one of {', '.join(BACKENDS)}")


def attention(
    q: jax.Array, k: jax.Array, v: jax.Array, segment_ids: jax.Array, *, backend: str, query_chunk: int = 128
) -> jax.Array:
    """q [B,T,N,H], k and v [B,T,K,H] with N a multiple of K, segment_ids [B,T] int -> [B,T,N,H].

    backend: "xla" (one block, the readable reference) or "xla_chunked" (causal blocks of `query_chunk` queries
    with a backward pass of its own; several times faster on a CPU, and linear in memory).
    """
    check_backend(backend)
    if backend == "xla_chunked":
        return chunked_attention(q, k, v, segment_ids, query_chunk)
    return plain_attention(q, k, v, segment_ids)


def plain_attention(q: jax.Array, k: jax.Array, v: jax.Array, segment_ids: jax.Array) -> jax.Array:
    """Shapes as in `attention`; all scores [B,K,N/K,T,T] at once, softmax in float32."""
    B, T, N, H = q.shape
    K = k.shape[2]
    q = q.reshape(B, T, K, N // K, H) * H**-0.5
    scores = jnp.einsum("bqkgh,bskh->bkgqs", q, k, preferred_element_type=jnp.float32)
    position = jnp.arange(T)
    allowed = (position[:, None] >= position) & (segment_ids[:, :, None] == segment_ids[:, None, :])
    scores = jnp.where(allowed[:, None, None], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    return jnp.einsum("bkgqs,bskh->bqkgh", weights, v).reshape(B, T, N, H)

"""Causal self-attention within segments, behind one switch.

All backends compute the same function: token i attends to token j of the same row when j <= i and both carry the same
segment id. Padding has a segment id of its own (0), so it attends to padding only and stays finite.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

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
    """q [B,T,N,H], k and v [B,T,K,H] with N a multiple of K, segment_ids [B,T] int -> [B,T,N,H]."""
    check_backend(backend)
    T = q.shape[1]
    chunk = T if backend == "xla" else query_chunk
    blocks = []
    for start in range(0, T, chunk):
        stop = min(start + chunk, T)
        # Keys after the block's last query are masked for all its queries: they are left out altogether.
        mask = causal_mask(segment_ids[:, start:stop], segment_ids[:, :stop], start)
        blocks.append(attend(q[:, start:stop], k[:, :stop], v[:, :stop], mask))
    return blocks[0] if len(blocks) == 1 else jnp.concatenate(blocks, axis=1)


def causal_mask(query_segments: jax.Array, key_segments: jax.Array, first_query: int) -> jax.Array:
    """query_segments [B,Q] from position `first_query` on, key_segments [B,S] from 0 on -> allowed [B,Q,S] bool."""
    Q, S = query_segments.shape[1], key_segments.shape[1]
    causal = first_query + jnp.arange(Q)[:, None] >= jnp.arange(S)[None, :]
    return causal & (query_segments[:, :, None] == key_segments[:, None, :])


def attend(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
    """q [B,Q,N,H], k and v [B,S,K,H], mask [B,Q,S] (each row with an allowed key) -> [B,Q,N,H]; softmax in float32."""
    B, Q, N, H = q.shape
    K = k.shape[2]
    q = q.reshape(B, Q, K, N // K, H) * H**-0.5
    scores = jnp.einsum("bqkgh,bskh->bkgqs", q, k, preferred_element_type=jnp.float32)
    scores = jnp.where(mask[:, None, None], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    return jnp.einsum("bkgqs,bskh->bqkgh", weights, v).reshape(B, Q, N, H)

"""A dense key-value cache for one batch of rows.

Prompts are right-padded to P slots and generated tokens follow from slot P on, the same slot for every row: so a
step writes one contiguous slice, and scatters nothing. Where a key sits says nothing about its position, because
rotary embeddings are applied before it is stored.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp


class LayerCache(NamedTuple):
    """k and v [B,K,S,H]: for each row and head one matrix, as the dot products of a decode step want it."""

    k: jax.Array
    v: jax.Array


Cache = list[LayerCache]


def write(cache: LayerCache, k: jax.Array, v: jax.Array, slot: jax.Array) -> LayerCache:
    """Puts k, v [B,1,K,H] into one slot of every row."""
    start = (0, 0, slot, 0)
    return LayerCache(
        jax.lax.dynamic_update_slice(cache.k, k.swapaxes(1, 2), start),
        jax.lax.dynamic_update_slice(cache.v, v.swapaxes(1, 2), start),
    )


def attend_cache(q: jax.Array, cache: LayerCache, live: jax.Array) -> jax.Array:
    """q [B,1,N,H], live [B,S] true for slots that hold a key of the row -> [B,1,N,H]; softmax in float32."""
    B, _, N, H = q.shape
    K = cache.k.shape[1]
    q = q.reshape(B, K, N // K, H) * H**-0.5
    scores = jnp.einsum("bkgh,bksh->bkgs", q, cache.k, preferred_element_type=jnp.float32)
    scores = jnp.where(live[:, None, None], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(cache.v.dtype)
    return jnp.einsum("bkgs,bksh->bkgh", weights, cache.v).reshape(B, 1, N, H)

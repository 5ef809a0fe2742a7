"""Attention over the pages of the key-value cache.

Attention takes one block of keys at a time, as FlashAttention does, in a loop that ends at the longest request. Keys
beyond a request's own end do not change its result by a single bit, and so the other requests in the batch do not
either.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int32

from mlagent_jax.generate.kv_cache import PAGES_AXES, SLOT_AXES, LayerCache, on_each_device
from mlagent_jax.nn.masks import MASK_VALUE

_QUERY_AXES = ("slots", None, "heads", None)


class BlockSizes(NamedTuple):
    """What attention takes at a time. The last bits of its results depend on `kv_pages` only.

    kv_pages: pages of keys; the length of a page table is a multiple of it. rows: rows of similar length that are
    computed together, up to the longest of them; 0: all.
    """

    kv_pages: int
    rows: int = 0


def paged_attention(
    q: Float[Array, "B T N H"],
    cache: LayerCache,
    page_tables: Int32[Array, "B n"],
    positions: Int32[Array, "B T"],
    block_sizes: BlockSizes,
    mesh: Mesh,
) -> Float[Array, "B T N H"]:
    """Each query attends to the keys up to its own position; float32 from the scores to the context.

    The result of a query whose position is negative has no meaning, but is finite.
    """

    def local(
        q: Float[Array, "B T N H"],
        cache: LayerCache,
        page_tables: Int32[Array, "B n"],
        positions: Int32[Array, "B T"],
    ) -> Float[Array, "B T N H"]:
        B, T, N, H = q.shape
        K = cache.k.shape[1]
        q = (q * H**-0.5).reshape(B, T, K, N // K, H).swapaxes(1, 2).reshape(B, K, -1, H)
        if 0 < block_sizes.rows < B:
            context = _attend_in_groups(q, cache, page_tables, positions, block_sizes)
        else:
            context = _attend(q, cache, page_tables, positions, block_sizes.kv_pages)
        return context.reshape(B, K, T, N // K, H).swapaxes(1, 2).reshape(B, T, N, H)

    axes = [_QUERY_AXES, PAGES_AXES, SLOT_AXES, SLOT_AXES]
    return on_each_device(local, mesh, axes, _QUERY_AXES)(q, cache, page_tables, positions)


def _attend_in_groups(
    q: Float[Array, "B K TG H"],
    cache: LayerCache,
    page_tables: Int32[Array, "B n"],
    positions: Int32[Array, "B T"],
    block_sizes: BlockSizes,
) -> Float[Array, "B K TG H"]:
    """`_attend` on groups of rows, from those with the most keys to those with the fewest."""
    B, group = len(q), block_sizes.rows
    order = jnp.argsort(-jnp.max(positions, axis=1))
    rows = (q[order], page_tables[order], positions[order])

    def body(i: Int32[Array, ""], contexts: Float[Array, "B K TG H"]) -> Float[Array, "B K TG H"]:
        start = jnp.minimum(i * group, B - group)  # the last group may compute some rows again
        q, page_tables, positions = (jax.lax.dynamic_slice_in_dim(x, start, group) for x in rows)
        context = _attend(q, cache, page_tables, positions, block_sizes.kv_pages)
        return jax.lax.dynamic_update_slice_in_dim(contexts, context, start, 0)

    contexts = jax.lax.fori_loop(0, -(-B // group), body, jnp.zeros_like(q))
    return contexts[jnp.argsort(order)]


def _attend(
    q: Float[Array, "B K TG H"],
    cache: LayerCache,
    page_tables: Int32[Array, "B n"],
    positions: Int32[Array, "B T"],
    kv_pages: int,
) -> Float[Array, "B K TG H"]:
    """q: scaled; its rows are T positions times G = N/K query heads that share a key head."""
    B, K, rows, H = q.shape
    length = kv_pages * cache.k.shape[2]
    # On a CPU XLA's products are slower with two batch axes than with one, and with one of size 1 than with none.
    batch = (B * K,) if B * K > 1 else ()
    last_key = jnp.repeat(positions, rows // positions.shape[1], axis=1)
    last_key = jnp.broadcast_to(last_key[:, None], (B, K, rows)).reshape(*batch, rows, 1)
    queries = q.reshape(*batch, rows, H)

    def body(i: Int32[Array, ""], carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        peak, total, context = carry
        pages = jax.lax.dynamic_slice_in_dim(page_tables, i * kv_pages, kv_pages, axis=1)
        k, v = (x.reshape(*batch, length, H) for x in _gather_pages(cache, pages))
        scores = jnp.einsum("...qh,...sh->...qs", queries, k, preferred_element_type=jnp.float32)
        scores = jnp.where(i * length + jnp.arange(length) <= last_key, scores, MASK_VALUE)
        higher = jnp.maximum(peak, jnp.max(scores, axis=-1, keepdims=True))
        weights, scale = jnp.exp(scores - higher), jnp.exp(peak - higher)
        part = jnp.einsum("...qs,...sh->...qh", weights, v.astype(weights.dtype))
        return higher, total * scale + jnp.sum(weights, axis=-1, keepdims=True), context * scale + part

    zeros = jnp.zeros((*batch, rows, 1), jnp.float32)
    start = (zeros + MASK_VALUE, zeros, jnp.zeros(queries.shape, jnp.float32))
    blocks = jnp.max(positions) // length + 1
    _, total, context = jax.lax.fori_loop(0, blocks, body, start)
    return (context / jnp.maximum(total, 1e-30)).astype(q.dtype).reshape(q.shape)


def _gather_pages(cache: LayerCache, pages: Int32[Array, "B n"]) -> LayerCache:
    """The keys and values of these pages, [B,K,n,S,H], where S is the page size."""
    if pages.size > 1:
        gathered: LayerCache = jax.lax.platform_dependent(
            cache, pages, cpu=_gather_by_copies, default=_gather_by_index
        )
        return gathered
    return _gather_by_index(cache, pages)


def _gather_by_index(cache: LayerCache, pages: Int32[Array, "B n"]) -> LayerCache:
    return LayerCache(*(pool[pages].swapaxes(1, 2) for pool in cache))


def _gather_by_copies(cache: LayerCache, pages: Int32[Array, "B n"]) -> LayerCache:
    """The same as `_gather_by_index`, which XLA compiles to a loop over elements on a CPU; this copies rows."""
    B, n = pages.shape
    P, K, page_size, H = cache.k.shape
    sources = [pool.reshape(P * K, page_size * H) for pool in cache]
    rows = (pages[:, None] * K + jnp.arange(K)[:, None]).reshape(-1)

    def copy_row(i: Int32[Array, ""], targets: list[Array]) -> list[Array]:
        return [
            jax.lax.dynamic_update_slice_in_dim(
                target, jax.lax.dynamic_slice_in_dim(source, rows[i], 1), i, 0
            )
            for source, target in zip(sources, targets, strict=True)
        ]

    targets = [jnp.zeros((len(rows), page_size * H), source.dtype) for source in sources]
    copied = jax.lax.fori_loop(0, len(rows), copy_row, targets)
    return LayerCache(*(x.reshape(B, K, n, page_size, H) for x in copied))

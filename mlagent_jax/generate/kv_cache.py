"""A paged key-value cache (after vLLM: Kwon et al. 2023, arXiv 2309.06180) and attention over it.

Every layer has one pool of pages; a request's table says which of them hold its tokens, in order. Attention takes a
fixed number of tokens at a time, as FlashAttention does, in a loop that ends at the longest request. What lies beyond
a request's own end changes nothing of its result, to the bit, so neither do its neighbours.

On a mesh each device has pages, slots and key heads of its own: page numbers count from 0 on every device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from mlagent_jax.parallel.rules import Names, spec

F = TypeVar("F", bound=Callable[..., Any])

TRASH = 0  # the page that takes what belongs to no request

_MASKED = -1e30  # finite, so that masked scores never make NaNs; exp of it is 0


class LayerCache(NamedTuple):
    """k and v [P,K,page,H]: P pages on all devices together."""

    k: jax.Array
    v: jax.Array


Cache = list[LayerCache]


class Tiling(NamedTuple):
    """What attention takes at a time; the last bits of its results depend on the span alone.

    span: pages of keys; a table has a multiple of them. group: rows of like length, no further than the longest of
    them (0: all).
    """

    span: int
    group: int = 0


PAGES = ("slots", "kv_heads", None, None)  # logical axes of k and v


def write_tokens(
    cache: LayerCache, k: jax.Array, v: jax.Array, page: jax.Array, offset: jax.Array, mesh: Mesh
) -> LayerCache:
    """Puts one token of each slot into its page: k and v [B,1,K,H], page and offset [B]."""

    def local(
        cache: LayerCache, k: jax.Array, v: jax.Array, page: jax.Array, offset: jax.Array
    ) -> LayerCache:
        return LayerCache(
            cache.k.at[page, :, offset].set(k[:, 0]),
            cache.v.at[page, :, offset].set(v[:, 0]),
        )

    return _on_each(local, mesh, [_POOL, _ROWS, _ROWS, _SLOTS, _SLOTS], _POOL)(cache, k, v, page, offset)


def write_pages(cache: LayerCache, k: jax.Array, v: jax.Array, pages: jax.Array, mesh: Mesh) -> LayerCache:
    """Puts whole pages of each row: k and v [R,T,K,H], pages [R,T/page]."""

    def local(cache: LayerCache, k: jax.Array, v: jax.Array, pages: jax.Array) -> LayerCache:
        def put(pool: jax.Array, x: jax.Array) -> jax.Array:
            _, K, page, H = pool.shape
            return pool.at[pages.reshape(-1)].set(x.reshape(-1, page, K, H).swapaxes(1, 2))

        return LayerCache(put(cache.k, k), put(cache.v, v))

    return _on_each(local, mesh, [_POOL, _ROWS, _ROWS, _SLOTS], _POOL)(cache, k, v, pages)


def copy_pages(cache: LayerCache, source: jax.Array, target: jax.Array, mesh: Mesh) -> LayerCache:
    """source and target [B]: a page of each slot's device, copied to another of it."""

    def local(cache: LayerCache, source: jax.Array, target: jax.Array) -> LayerCache:
        return LayerCache(*(pool.at[target].set(pool[source]) for pool in cache))

    return _on_each(local, mesh, [_POOL, _SLOTS, _SLOTS], _POOL)(cache, source, target)


def attend_pages(
    q: jax.Array,
    cache: LayerCache,
    tables: jax.Array,
    positions: jax.Array,
    tiling: Tiling,
    mesh: Mesh,
) -> jax.Array:
    """q [B,T,N,H] at positions [B,T], tables [B,n] -> [B,T,N,H]; float32 from scores to context.

    A query sees the keys up to its own position; a row whose positions are all negative sees nothing that counts.
    """

    def local(q: jax.Array, cache: LayerCache, tables: jax.Array, positions: jax.Array) -> jax.Array:
        B, T, N, H = q.shape
        K = cache.k.shape[1]
        q = (q * H**-0.5).reshape(B, T, K, N // K, H).swapaxes(1, 2).reshape(B, K, -1, H)
        if 0 < tiling.group < B:
            context = _attend_in_groups(q, cache, tables, positions, tiling)
        else:
            context = _attend_together(q, cache, tables, positions, tiling.span)
        return context.reshape(B, K, T, N // K, H).swapaxes(1, 2).reshape(B, T, N, H)

    return _on_each(local, mesh, [_QUERIES, _POOL, _SLOTS, _SLOTS], _QUERIES)(q, cache, tables, positions)


def _attend_in_groups(
    q: jax.Array, cache: LayerCache, tables: jax.Array, positions: jax.Array, tiling: Tiling
) -> jax.Array:
    """As `_attend_together`, from the rows that see most to those that see least."""
    B, group = len(q), tiling.group
    order = jnp.argsort(-jnp.max(positions, axis=1))
    rows = (q[order], tables[order], positions[order])

    def body(i: jax.Array, contexts: jax.Array) -> jax.Array:
        start = jnp.minimum(i * group, B - group)  # the last group may do some rows again
        q, tables, positions = (jax.lax.dynamic_slice_in_dim(x, start, group) for x in rows)
        context = _attend_together(q, cache, tables, positions, tiling.span)
        return jax.lax.dynamic_update_slice_in_dim(contexts, context, start, 0)

    contexts = jax.lax.fori_loop(0, -(-B // group), body, jnp.zeros_like(q))
    return contexts[jnp.argsort(order)]


def _attend_together(
    q: jax.Array, cache: LayerCache, tables: jax.Array, positions: jax.Array, span: int
) -> jax.Array:
    """q [B,K,T*G,H], scaled, at positions [B,T] -> [B,K,T*G,H]."""
    B, K, rows, H = q.shape
    length = span * cache.k.shape[2]
    # XLA's products on a CPU are slower with two batch axes than with one, and with one of size 1 than with none.
    batch = (B * K,) if B * K > 1 else ()
    seen = jnp.repeat(positions, rows // positions.shape[1], axis=1)
    seen = jnp.broadcast_to(seen[:, None], (B, K, rows)).reshape(*batch, rows, 1)
    queries = q.reshape(*batch, rows, H)

    def body(i: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        peak, total, context = carry
        ids = jax.lax.dynamic_slice_in_dim(tables, i * span, span, axis=1)
        k, v = (x.reshape(*batch, length, H) for x in _fetch(cache, ids))
        scores = jnp.einsum("...qh,...sh->...qs", queries, k, preferred_element_type=jnp.float32)
        scores = jnp.where(i * length + jnp.arange(length) <= seen, scores, _MASKED)
        higher = jnp.maximum(peak, jnp.max(scores, axis=-1, keepdims=True))
        weights, scale = jnp.exp(scores - higher), jnp.exp(peak - higher)
        part = jnp.einsum("...qs,...sh->...qh", weights, v.astype(weights.dtype))
        return higher, total * scale + jnp.sum(weights, axis=-1, keepdims=True), context * scale + part

    nothing = jnp.zeros((*batch, rows, 1), jnp.float32)
    start = (nothing + _MASKED, nothing, jnp.zeros(queries.shape, jnp.float32))
    spans = jnp.max(positions) // length + 1
    _, total, context = jax.lax.fori_loop(0, spans, body, start)
    return (context / jnp.maximum(total, 1e-30)).astype(q.dtype).reshape(q.shape)


def _fetch(cache: LayerCache, ids: jax.Array) -> LayerCache:
    """ids [B,span] -> the keys and values of these pages, [B,K,span,page,H]."""
    if ids.size > 1:
        pages: LayerCache = jax.lax.platform_dependent(cache, ids, cpu=_copy_one_by_one, default=_take)
        return pages
    return _take(cache, ids)


def _take(cache: LayerCache, ids: jax.Array) -> LayerCache:
    return LayerCache(*(pool[ids].swapaxes(1, 2) for pool in cache))


def _copy_one_by_one(cache: LayerCache, ids: jax.Array) -> LayerCache:
    """As `_take`, which XLA compiles for a CPU to a loop over elements; rows of a matrix it copies."""
    B, span = ids.shape
    P, K, page, H = cache.k.shape
    sources = [pool.reshape(P * K, page * H) for pool in cache]
    rows = (ids[:, None] * K + jnp.arange(K)[:, None]).reshape(-1)

    def copy(i: jax.Array, targets: list[jax.Array]) -> list[jax.Array]:
        return [
            jax.lax.dynamic_update_slice_in_dim(to, jax.lax.dynamic_slice_in_dim(source, rows[i], 1), i, 0)
            for source, to in zip(sources, targets, strict=True)
        ]

    targets = [jnp.zeros((len(rows), page * H), source.dtype) for source in sources]
    copied = jax.lax.fori_loop(0, len(rows), copy, targets)
    return LayerCache(*(pages.reshape(B, K, span, page, H) for pages in copied))


_POOL = PAGES
_ROWS = ("slots", None, "kv_heads", None)
_QUERIES = ("slots", None, "heads", None)
_SLOTS = ("slots",)


def _on_each(local: F, mesh: Mesh, inputs: Sequence[Names], output: Names) -> F:
    """`local` on every device with its share of the arrays, whose logical axes these are."""
    if mesh.size == 1:
        return local
    specs = tuple(spec(axes) for axes in inputs)
    return jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=spec(output), check_vma=False)

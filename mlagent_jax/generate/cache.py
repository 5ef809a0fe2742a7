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
    span: int,
    group: int,
    mesh: Mesh,
) -> jax.Array:
    """q [B,T,N,H] at positions [B,T], tables [B,n] -> [B,T,N,H]; softmax in float32.

    A query sees the keys up to its own position; a row whose positions are all negative sees nothing that counts.
    span: pages that are attended to at a time; n must be a multiple of it.
    group: rows that are computed at a time, of like length, and no further than the longest of them.
    """

    def local(q: jax.Array, cache: LayerCache, tables: jax.Array, positions: jax.Array) -> jax.Array:
        B, T, N, H = q.shape
        K = cache.k.shape[1]
        G = N // K
        q = (q * H**-0.5).reshape(B, T, K, G, H).transpose(0, 2, 3, 1, 4).reshape(B, K, G * T, H)
        if group < B:
            context = _attend_in_groups(q, cache, tables, positions, span, group)
        else:
            context = _attend_together(q, cache, tables, positions, span)
        return context.reshape(B, K, G, T, H).transpose(0, 3, 1, 2, 4).reshape(B, T, N, H)

    return _on_each(local, mesh, [_QUERIES, _POOL, _SLOTS, _SLOTS], _QUERIES)(q, cache, tables, positions)


def _attend_in_groups(
    q: jax.Array, cache: LayerCache, tables: jax.Array, positions: jax.Array, span: int, group: int
) -> jax.Array:
    """As `_attend_together`, on `group` rows at a time, from the longest to the shortest."""
    B = q.shape[0]
    order = jnp.argsort(-jnp.max(positions, axis=1))
    rows = (q[order], tables[order], positions[order])

    def body(i: jax.Array, contexts: jax.Array) -> jax.Array:
        start = jnp.minimum(i * group, B - group)  # the last group may do some rows again
        some = [jax.lax.dynamic_slice_in_dim(x, start, group) for x in rows]
        context = _attend_together(some[0], cache, some[1], some[2], span)
        return jax.lax.dynamic_update_slice_in_dim(contexts, context, start, 0)

    contexts = jax.lax.fori_loop(0, -(-B // group), body, jnp.zeros_like(q))
    return contexts[jnp.argsort(order)]


def _attend_together(
    q: jax.Array, cache: LayerCache, tables: jax.Array, positions: jax.Array, span: int
) -> jax.Array:
    """q [B,K,G*T,H], scaled -> [B,K,G*T,H]."""
    B, K, rows, H = q.shape
    length = span * cache.k.shape[2]
    q = q.reshape(B * K, rows, H)  # with two batch axes, XLA's product on a CPU is slower
    seen = jnp.tile(positions, (1, rows // positions.shape[1]))
    seen = jnp.broadcast_to(seen[:, None], (B, K, rows)).reshape(B * K, rows, 1)

    def body(i: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        peak, total, context = carry
        ids = jax.lax.dynamic_slice_in_dim(tables, i * span, span, axis=1)
        k, v = (_fetch(pool, ids) for pool in cache)
        scores = jnp.einsum("bqh,bsh->bqs", q, k, preferred_element_type=jnp.float32)
        scores = jnp.where(i * length + jnp.arange(length) <= seen, scores, _MASKED)
        higher = jnp.maximum(peak, jnp.max(scores, axis=-1, keepdims=True))
        weights, scale = jnp.exp(scores - higher), jnp.exp(peak - higher)
        part = jnp.einsum("bqs,bsh->bqh", weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
        return higher, total * scale + jnp.sum(weights, axis=-1, keepdims=True), context * scale + part

    nothing = jnp.zeros((B * K, rows, 1), jnp.float32)
    start = (nothing + _MASKED, nothing, jnp.zeros((B * K, rows, H), jnp.float32))
    spans = jnp.max(positions) // length + 1
    _, total, context = jax.lax.fori_loop(0, spans, body, start)
    return (context / jnp.maximum(total, 1e-30)).astype(q.dtype).reshape(B, K, rows, H)


def _fetch(pool: jax.Array, ids: jax.Array) -> jax.Array:
    """pool [P,K,page,H], ids [B,span] -> the keys or values of these pages [B*K,span*page,H]."""
    B, span = ids.shape
    _, K, page, H = pool.shape
    flat = ids.reshape(-1)
    if flat.size > 1:
        pages = jax.lax.platform_dependent(pool, flat, cpu=_copy_each, default=_take)
    else:
        pages = _take(pool, flat)
    return pages.reshape(B, span, K, page, H).swapaxes(1, 2).reshape(B * K, span * page, H)


def _take(pool: jax.Array, ids: jax.Array) -> jax.Array:
    return pool[ids]


def _copy_each(pool: jax.Array, ids: jax.Array) -> jax.Array:
    """`_take` page by page, since XLA's gather on a CPU goes element by element."""
    count, rows = ids.shape[0], pool.reshape(pool.shape[0], -1)

    def body(i: jax.Array, pages: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_slice_in_dim(
            pages, jax.lax.dynamic_slice_in_dim(rows, ids[i], 1), i, 0
        )

    pages = jax.lax.fori_loop(0, count, body, jnp.zeros((count, rows.shape[1]), pool.dtype))
    return pages.reshape(count, *pool.shape[1:])


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

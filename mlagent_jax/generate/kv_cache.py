"""A paged key-value cache (after vLLM: Kwon et al. 2023, arXiv 2309.06180).

Every layer has one pool of pages; the page table of a request says which pages hold its tokens, in order. On a mesh
each device has its own pages, slots and key heads; page numbers count from 0 on every device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int32

from mlagent_jax.parallel.rules import LogicalAxes, spec

F = TypeVar("F", bound=Callable[..., Any])

NULL_PAGE = 0  # belongs to no request; takes what is written for empty rows and padding

# Logical axes of the pages, of one array per slot, and of keys and values by row.
PAGES_AXES = ("slots", "kv_heads", None, None)
SLOT_AXES = ("slots",)
_ROW_AXES = ("slots", None, "kv_heads", None)


class LayerCache(NamedTuple):
    """Keys and values of one layer; P pages of all devices together, S tokens in a page."""

    k: Float[Array, "P K S H"]
    v: Float[Array, "P K S H"]


KVCache = list[LayerCache]


def write_tokens(
    cache: LayerCache,
    k: Float[Array, "B 1 K H"],
    v: Float[Array, "B 1 K H"],
    page: Int32[Array, " B"],
    offset: Int32[Array, " B"],
    mesh: Mesh,
) -> LayerCache:
    """Writes one token of each slot to position `offset` of its page."""

    def local(
        cache: LayerCache,
        k: Float[Array, "B 1 K H"],
        v: Float[Array, "B 1 K H"],
        page: Int32[Array, " B"],
        offset: Int32[Array, " B"],
    ) -> LayerCache:
        return LayerCache(
            cache.k.at[page, :, offset].set(k[:, 0]),
            cache.v.at[page, :, offset].set(v[:, 0]),
        )

    axes = [PAGES_AXES, _ROW_AXES, _ROW_AXES, SLOT_AXES, SLOT_AXES]
    return on_each_device(local, mesh, axes, PAGES_AXES)(cache, k, v, page, offset)


def write_pages(
    cache: LayerCache,
    k: Float[Array, "R T K H"],
    v: Float[Array, "R T K H"],
    pages: Int32[Array, "R n"],
    mesh: Mesh,
) -> LayerCache:
    """Writes whole pages of each row; T must be n pages."""

    def local(
        cache: LayerCache,
        k: Float[Array, "R T K H"],
        v: Float[Array, "R T K H"],
        pages: Int32[Array, "R n"],
    ) -> LayerCache:
        def write(pool: Float[Array, "P K S H"], x: Float[Array, "R T K H"]) -> Float[Array, "P K S H"]:
            _, K, page_size, H = pool.shape
            return pool.at[pages.reshape(-1)].set(x.reshape(-1, page_size, K, H).swapaxes(1, 2))

        return LayerCache(write(cache.k, k), write(cache.v, v))

    axes = [PAGES_AXES, _ROW_AXES, _ROW_AXES, SLOT_AXES]
    return on_each_device(local, mesh, axes, PAGES_AXES)(cache, k, v, pages)


def copy_pages(
    cache: LayerCache, source: Int32[Array, " B"], target: Int32[Array, " B"], mesh: Mesh
) -> LayerCache:
    """Copies, for each slot, a page of its device to another page of the same device."""

    def local(cache: LayerCache, source: Int32[Array, " B"], target: Int32[Array, " B"]) -> LayerCache:
        return LayerCache(*(pool.at[target].set(pool[source]) for pool in cache))

    return on_each_device(local, mesh, [PAGES_AXES, SLOT_AXES, SLOT_AXES], PAGES_AXES)(cache, source, target)


def on_each_device(local: F, mesh: Mesh, inputs: Sequence[LogicalAxes], output: LogicalAxes) -> F:
    """`local`, run on every device with its share of the arrays. inputs, output: their logical axes."""
    if mesh.size == 1:
        return local
    specs = tuple(spec(axes) for axes in inputs)
    return jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=spec(output), check_vma=False)

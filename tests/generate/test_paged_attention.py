"""Attention over pages equals attention over the keys and values in them, for any block sizes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlagent_jax.generate.kv_cache import LayerCache
from mlagent_jax.generate.paged_attention import (
    BlockSizes,
    _gather_by_copies,
    _gather_by_index,
    paged_attention,
)
from mlagent_jax.parallel.mesh import MeshConfig, make_mesh

PAGE, LONGEST, HEAD = 8, 96, 16
PAGES = LONGEST // PAGE
DECODE = [BlockSizes(kv_pages, rows) for kv_pages in (1, 3, 12) for rows in (0, 1, 2, 3, 7)]
PREFILL = [BlockSizes(kv_pages, rows) for kv_pages in (1, 4) for rows in (0, 1)]


@pytest.mark.parametrize(
    ("block_sizes", "heads"),
    [
        *((block_sizes, (6, 3)) for block_sizes in DECODE),
        *((BlockSizes(3, rows), heads) for rows in (0, 2) for heads in ((4, 1), (2, 2))),
    ],
    ids=str,
)
def test_one_token_of_each_row(block_sizes, heads):
    positions = np.array([0, 95, 31, -1, 8, 50, 77])[:, None]
    _check(positions, block_sizes, *heads)


@pytest.mark.parametrize("heads", [(4, 1), (6, 3)])
@pytest.mark.parametrize("block_sizes", PREFILL, ids=str)
def test_a_chunk_of_each_row(block_sizes, heads):
    positions = np.array([[0], [64], [24]]) + np.arange(32)
    positions[1, 20:] = -1  # the end of a prompt
    _check(positions, block_sizes, *heads)


def test_pages_are_the_same_however_they_are_gathered():
    cache, tables, _, _ = _filled(3, 2)
    ids = jnp.asarray(tables[:, 2:5])
    for copied, indexed in zip(_gather_by_copies(cache, ids), _gather_by_index(cache, ids), strict=True):
        np.testing.assert_array_equal(copied, indexed)


def _filled(rows: int, kv_heads: int) -> tuple[LayerCache, np.ndarray, np.ndarray, np.ndarray]:
    """A cache with pages in random order, each row's page table, and its keys and values [rows,LONGEST,K,H]."""
    rng = np.random.default_rng(0)
    tables = rng.permutation(rows * PAGES).reshape(rows, PAGES).astype(np.int32) + 1
    pools = rng.normal(size=(2, rows * PAGES + 1, kv_heads, PAGE, HEAD)).astype(np.float32)
    k, v = (pool[tables].transpose(0, 1, 3, 2, 4).reshape(rows, LONGEST, kv_heads, HEAD) for pool in pools)
    return LayerCache(*map(jnp.asarray, pools)), tables, k, v


def _check(positions: np.ndarray, block_sizes: BlockSizes, heads: int, kv_heads: int) -> None:
    rows, T = positions.shape
    cache, tables, k, v = _filled(rows, kv_heads)
    q = np.random.default_rng(1).normal(size=(rows, T, heads, HEAD)).astype(np.float32)
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    got = jax.jit(paged_attention, static_argnums=(4, 5))(
        jnp.asarray(q), cache, jnp.asarray(tables), jnp.asarray(positions, jnp.int32), block_sizes, mesh
    )
    visible = np.arange(LONGEST) <= positions[:, None, :, None]
    expected = jax.nn.dot_product_attention(q, k, v, mask=jnp.asarray(visible))
    real = positions >= 0
    np.testing.assert_allclose(np.asarray(got)[real], np.asarray(expected)[real], atol=2e-6)
    assert np.isfinite(got).all()

"""Attention over pages is attention over what they hold, whatever it takes at a time."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlagent_jax.generate.kv_cache import LayerCache, Tiling, attend_pages
from mlagent_jax.generate.kv_cache import _copy_one_by_one as copy_on_a_cpu
from mlagent_jax.generate.kv_cache import _take as take_elsewhere
from mlagent_jax.parallel.mesh import MeshConfig, make_mesh

PAGE, LONGEST, HEAD = 8, 96, 16
PAGES = LONGEST // PAGE
DECODING = [Tiling(span, group=group) for span in (1, 3, 12) for group in (0, 1, 2, 3, 7)]
READING = [Tiling(span, group) for span in (1, 4) for group in (0, 1)]


@pytest.mark.parametrize("heads", [(4, 1), (6, 3), (2, 2)])
@pytest.mark.parametrize("tiling", DECODING, ids=str)
def test_one_token_of_each_row(tiling, heads):
    positions = np.array([0, 95, 31, -1, 8, 50, 77])[:, None]
    _check(positions, tiling, *heads)


@pytest.mark.parametrize("heads", [(4, 1), (6, 3)])
@pytest.mark.parametrize("tiling", READING, ids=str)
def test_a_chunk_of_each_row(tiling, heads):
    positions = np.array([[0], [64], [24]]) + np.arange(32)
    positions[1, 20:] = -1  # the end of a prompt
    _check(positions, tiling, *heads)


def test_pages_are_the_same_however_they_are_fetched():
    cache, tables, _, _ = _filled(3, 2)
    ids = jnp.asarray(tables[:, 2:5])
    for one_by_one, taken in zip(copy_on_a_cpu(cache, ids), take_elsewhere(cache, ids), strict=True):
        np.testing.assert_array_equal(one_by_one, taken)


def _filled(rows: int, kv_heads: int) -> tuple[LayerCache, np.ndarray, np.ndarray, np.ndarray]:
    """A cache with pages in no order, each row's table, and the keys and values [rows,LONGEST,K,H] that it tells."""
    rng = np.random.default_rng(0)
    tables = rng.permutation(rows * PAGES).reshape(rows, PAGES).astype(np.int32) + 1
    pools = rng.normal(size=(2, rows * PAGES + 1, kv_heads, PAGE, HEAD)).astype(np.float32)
    k, v = (pool[tables].transpose(0, 1, 3, 2, 4).reshape(rows, LONGEST, kv_heads, HEAD) for pool in pools)
    return LayerCache(*map(jnp.asarray, pools)), tables, k, v


def _check(positions: np.ndarray, tiling: Tiling, heads: int, kv_heads: int) -> None:
    rows, T = positions.shape
    cache, tables, k, v = _filled(rows, kv_heads)
    q = np.random.default_rng(1).normal(size=(rows, T, heads, HEAD)).astype(np.float32)
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    got = attend_pages(q, cache, jnp.asarray(tables), jnp.asarray(positions), tiling, mesh)
    visible = np.arange(LONGEST) <= positions[:, None, :, None]
    expected = jax.nn.dot_product_attention(q, k, v, mask=jnp.asarray(visible))
    real = positions >= 0
    np.testing.assert_allclose(np.asarray(got)[real], np.asarray(expected)[real], atol=2e-6)
    assert np.isfinite(got).all()

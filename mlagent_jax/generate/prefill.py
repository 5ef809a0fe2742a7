"""Prefilling: the tokens of prompts go through the model, chunk by chunk, and into the cache."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from mlagent_jax.generate.batches import PrefillBatch
from mlagent_jax.generate.engine_setup import EngineSetup
from mlagent_jax.generate.kv_cache import NULL_PAGE, KVCache, LayerCache, write_pages
from mlagent_jax.generate.layers import SPLIT_ROWS, CachedAttention, run_layers
from mlagent_jax.generate.paged_attention import paged_attention
from mlagent_jax.models.params import Params


def engine_prefill(
    setup: EngineSetup, weights: Params, cache: KVCache, batch: PrefillBatch[Array]
) -> KVCache:
    """The cache with the batch's tokens. Each chunk must start at the beginning of a page."""
    size, page_size = batch.tokens.shape[1], setup.engine.page_size
    offsets = jnp.arange(size)
    is_token = offsets < batch.num_tokens[:, None]
    positions = batch.start[:, None] + offsets
    chunk_pages = jnp.arange(size // page_size)
    pages = jnp.take_along_axis(batch.page_tables, batch.start[:, None] // page_size + chunk_pages, axis=1)
    pages = jnp.where(chunk_pages * page_size < batch.num_tokens[:, None], pages, NULL_PAGE)
    query_positions = jnp.where(is_token, positions, -1)
    block_sizes = setup.prefill_block_sizes(size)

    def write(layer: LayerCache, k: Float[Array, "R C K H"], v: Float[Array, "R C K H"]) -> LayerCache:
        # Masked values must be finite too: their weight is 0, but 0 x NaN is NaN.
        k, v = (jnp.where(is_token[:, :, None, None], x, 0) for x in (k, v))
        return write_pages(layer, k, v, pages, setup.mesh)

    def attend(q: Float[Array, "R C N H"], layer: LayerCache) -> Float[Array, "R C N H"]:
        return paged_attention(q, layer, batch.page_tables, query_positions, block_sizes, setup.mesh)

    # The last layer's activations are not used, so XLA removes all of that layer but its keys and values.
    return run_layers(
        setup,
        weights,
        cache,
        batch.tokens,
        positions,
        lambda layer: CachedAttention(layer, write, attend),
        SPLIT_ROWS,
    )[0]

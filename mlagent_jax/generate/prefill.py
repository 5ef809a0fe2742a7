"""Reading the prompts: one pass over all their tokens that fills the cache."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from mlagent_jax.generate.cache import Cache, LayerCache
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.qwen2 import Params, block, embed, final_norm
from mlagent_jax.nn.attention import attention
from mlagent_jax.nn.rope import rope_tables


@partial(jax.jit, static_argnums=(0, 1), static_argnames="mesh")
def prefill(
    config: Qwen2Config,
    max_new_tokens: int,
    params: Params,
    tokens: jax.Array,
    lengths: jax.Array,
    mesh: Mesh | None = None,
) -> tuple[Cache, jax.Array]:
    """Reads right-padded prompts: tokens [B,P], lengths [B] (0 for a dummy row); mesh as in `forward`.

    Returns a cache of P + max_new_tokens slots, the first P filled, and the hidden state [B,D] of each last token.
    """
    slots = jnp.arange(tokens.shape[1])
    segments = (slots < lengths[:, None]).astype(jnp.int32)
    rope = rope_tables(slots[None], config.head_dim, config.rope_theta)

    def layer(x: jax.Array, layer_params: Params) -> tuple[jax.Array, LayerCache]:
        stored: list[LayerCache] = []

        def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
            stored.append(LayerCache(k.swapaxes(1, 2), v.swapaxes(1, 2)))
            return attention(
                q, k, v, segments, backend=config.attention, query_chunk=config.query_chunk, mesh=mesh
            )

        return block(config, layer_params)(x, rope, attend), stored[0]

    x, stacked = jax.lax.scan(layer, embed(config, params, tokens), params["layers"])
    room = ((0, 0), (0, 0), (0, max_new_tokens), (0, 0))
    cache = [
        LayerCache(jnp.pad(stacked.k[i], room), jnp.pad(stacked.v[i], room))
        for i in range(config.num_hidden_layers)
    ]
    last = jnp.take_along_axis(x, jnp.maximum(lengths - 1, 0)[:, None, None], axis=1)[:, 0]
    return cache, final_norm(config, params, last)

"""The token-by-token loop: one compiled `while_loop` for a whole batch, with its cache updated in place."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mlagent_jax.generate.cache import Cache, attend_cache, write
from mlagent_jax.generate.sampling import Method, sample, uniforms
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.qwen2 import Params, block, embed, final_norm, unembedding, unstack_layers
from mlagent_jax.nn.rope import rope_tables


class Decoded(NamedTuple):
    """tokens [B,M] int32, logprobs [B,M] float32, counts [B] int32: how many of a row's are real.

    cache: returned so that the donated buffers have somewhere to go, which saves a copy.
    """

    tokens: jax.Array
    logprobs: jax.Array
    counts: jax.Array
    cache: Cache


class _Loop(NamedTuple):
    made: jax.Array  # [] tokens made so far
    done: jax.Array  # [B] rows that have met a stop token
    hidden: jax.Array  # [B,D] of the last token
    out: Decoded


@partial(jax.jit, static_argnums=(0, 1, 2, 3), donate_argnums=(5,))
def decode(
    config: Qwen2Config,
    max_new_tokens: int,
    stop_ids: tuple[int, ...],
    method: Method,
    params: Params,
    cache: Cache,
    hidden: jax.Array,
    lengths: jax.Array,
    seeds: jax.Array,
    temperature: jax.Array,
    top_p: jax.Array,
) -> Decoded:
    """Samples until every row has met a stop token or has max_new_tokens (M). Consumes `cache`.

    cache and hidden [B,D] as `prefill` leaves them, lengths [B] of the prompts (0: a dummy row, born done),
    seeds [B] uint32, temperature and top_p scalars.
    """
    B, M = hidden.shape[0], max_new_tokens
    prompt_slots = cache[0].k.shape[2] - M
    slots = jnp.arange(prompt_slots + M)
    layers = unstack_layers(config, params)  # a loop over layers copies no cache, a scan would
    unembed = unembedding(config, params)
    stops = jnp.asarray(stop_ids, jnp.int32)
    randomness = uniforms(seeds, lengths[:, None] + jnp.arange(M))

    def running(loop: _Loop) -> jax.Array:
        return (loop.made < M) & ~jnp.all(loop.done)

    def step(loop: _Loop) -> _Loop:
        made, out = loop.made, loop.out
        uniform = jax.lax.dynamic_index_in_dim(randomness, made, axis=1, keepdims=False)
        token, logprob = sample(loop.hidden @ unembed, uniform, method, temperature, top_p)
        cache, hidden = feed(out.cache, token, made)
        out = Decoded(
            jax.lax.dynamic_update_slice(out.tokens, token[:, None], (0, made)),
            jax.lax.dynamic_update_slice(out.logprobs, logprob[:, None], (0, made)),
            out.counts + ~loop.done,
            cache,
        )
        return _Loop(made + 1, loop.done | jnp.any(token[:, None] == stops, axis=1), hidden, out)

    def feed(cache: Cache, token: jax.Array, made: jax.Array) -> tuple[Cache, jax.Array]:
        """Runs one token [B] of each row through the layers, into slot prompt_slots + made."""
        slot = prompt_slots + made
        live = (slots < lengths[:, None]) | ((slots >= prompt_slots) & (slots <= slot))
        rope = rope_tables((lengths + made)[:, None], config.head_dim, config.rope_theta)
        updated: Cache = []

        def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
            updated.append(write(cache[len(updated)], k, v, slot))
            return attend_cache(q, updated[-1], live)

        x = embed(config, params, token[:, None])
        for layer in layers:
            x = block(config, layer)(x, rope, attend)
        return updated, final_norm(config, params, x[:, 0])

    nothing = Decoded(
        jnp.zeros((B, M), jnp.int32), jnp.zeros((B, M), jnp.float32), jnp.zeros(B, jnp.int32), cache
    )
    start = _Loop(jnp.zeros((), jnp.int32), lengths == 0, hidden, nothing)
    return jax.lax.while_loop(running, step, start).out

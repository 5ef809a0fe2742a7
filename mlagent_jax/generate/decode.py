"""Decoding: several tokens of every slot in one call."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int32

from mlagent_jax.generate.batches import DecodeBatch, DecodeOutput
from mlagent_jax.generate.engine_setup import EngineSetup
from mlagent_jax.generate.kv_cache import NULL_PAGE, KVCache, LayerCache, write_tokens
from mlagent_jax.generate.layers import SPLIT_COLUMNS, CachedAttention, run_layers
from mlagent_jax.generate.paged_attention import paged_attention
from mlagent_jax.generate.sampling import mask_stop_ids, raw_logprobs, sample, uniforms
from mlagent_jax.models.params import Params
from mlagent_jax.models.qwen2 import final_norm, unembedding
from mlagent_jax.nn.vocabulary import mask_unused_ids
from mlagent_jax.parallel.rules import constrain


class _DecodeState(NamedTuple):
    """step: of this call. ended: slots that are empty or whose request has ended. token: the last one of each slot, not
    yet in the cache."""

    step: Int32[Array, ""]
    ended: Bool[Array, " S"]
    cache: KVCache
    token: Int32[Array, " S"]
    output: DecodeOutput[Array]


def engine_decode(
    setup: EngineSetup, weights: Params, cache: KVCache, batch: DecodeBatch[Array]
) -> tuple[KVCache, DecodeOutput[Array]]:
    """Decodes until `batch.max_steps`, until all requests have ended, or until one has if `batch.exit_on_finish`.

    A request ends with a stop id, when nothing is remaining, or with a log-prob that is not finite.
    """
    S, M = batch.length.shape[0], setup.engine.decode_steps

    def goes_on(state: _DecodeState) -> Bool[Array, ""]:
        any_finished = jnp.any(state.ended & (batch.remaining > 0))
        return (state.step < batch.max_steps) & ~jnp.all(state.ended) & ~(batch.exit_on_finish & any_finished)

    output = DecodeOutput(
        jnp.zeros((S, M), jnp.int32), jnp.zeros((S, M), jnp.float32), jnp.zeros(S, jnp.int32)
    )
    start = _DecodeState(jnp.zeros((), jnp.int32), batch.remaining <= 0, cache, batch.token, output)
    final = jax.lax.while_loop(goes_on, lambda state: _decode_step(setup, weights, batch, state), start)
    return final.cache, final.output


def _decode_step(
    setup: EngineSetup, weights: Params, batch: DecodeBatch[Array], state: _DecodeState
) -> _DecodeState:
    """Samples one more token of every slot."""
    step, output, live = state.step, state.output, ~state.ended
    length = batch.length + output.counts
    cache, hidden = _run_token(setup, weights, batch, state.cache, state.token, length, live)
    logits = _logits(setup, weights, hidden)
    allowed = mask_stop_ids(logits, batch.stop_ids, output.counts < batch.min_tokens)
    token, logprob = sample(allowed, uniforms(batch.seed, length + 1), batch.sampling)
    if setup.engine.logprobs_mode == "raw_logprobs":
        logprob = raw_logprobs(logits, token)
    output = DecodeOutput(
        jax.lax.dynamic_update_slice(output.tokens, token[:, None], (0, step)),
        jax.lax.dynamic_update_slice(output.logprobs, logprob[:, None], (0, step)),
        output.counts + live,
    )
    stopped = jnp.any(token[:, None] == batch.stop_ids, axis=1)
    ended = state.ended | stopped | (output.counts >= batch.remaining) | ~jnp.isfinite(logprob)
    return _DecodeState(step + 1, ended, cache, token, output)


def _run_token(
    setup: EngineSetup,
    weights: Params,
    batch: DecodeBatch[Array],
    cache: KVCache,
    token: Int32[Array, " S"],
    length: Int32[Array, " S"],
    live: Bool[Array, " S"],
) -> tuple[KVCache, Float[Array, "S D"]]:
    """One token of each slot, at position `length`: the cache with it, and its last hidden state."""
    page_size, mesh = setup.engine.page_size, setup.mesh
    page = jnp.take_along_axis(batch.page_tables, length[:, None] // page_size, axis=1)[:, 0]
    page, offset = jnp.where(live, page, NULL_PAGE), length % page_size
    query_positions = jnp.where(live, length, -1)[:, None]

    def write(layer: LayerCache, k: Float[Array, "S 1 K H"], v: Float[Array, "S 1 K H"]) -> LayerCache:
        # Masked values must be finite too: their weight is 0, but 0 x NaN is NaN.
        k, v = (jnp.where(live[:, None, None, None], x, 0) for x in (k, v))
        return write_tokens(layer, k, v, page, offset, mesh)

    def attend(q: Float[Array, "S 1 N H"], layer: LayerCache) -> Float[Array, "S 1 N H"]:
        return paged_attention(q, layer, batch.page_tables, query_positions, setup.decode_block_sizes, mesh)

    cache, x = run_layers(
        setup,
        weights,
        cache,
        token[:, None],
        length[:, None],
        lambda layer: CachedAttention(layer, write, attend),
        SPLIT_COLUMNS,
    )
    return cache, constrain(final_norm(setup.model, weights, x[:, 0]), (None, "embed"), mesh)


def _logits(setup: EngineSetup, weights: Params, hidden: Float[Array, "S D"]) -> Float32[Array, "S V"]:
    """The logits in float32, as in the trainer."""
    # Computed in every step: before the loop, the transpose of a tied embedding would be a copy.
    unembed = unembedding(setup.model, weights)
    logits = jnp.matmul(hidden, unembed, preferred_element_type=jnp.float32)
    logits = constrain(logits, ("slots", None), setup.mesh)
    return mask_unused_ids(logits, setup.model.unused_ids)

"""What an engine compiles: pure functions of its weights and cache, whose devices need not be there.

Weights have the layers apart (`{"embed", "norm", "lm_head", "layers": [...]}`) since a slice of a stack would be a
copy, in the dtype of computation and split over the mesh as in training; adapters stay beside their kernels. While
decoding, a few activations are moved to where the weights lie, and not the weights: each device multiplies its columns
of all rows (Pope et al. 2022, arXiv 2211.05102). A chunk of a prompt has so many that the weights are gathered layer by
layer, as in training.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from mlagent_jax.generate.config import EngineConfig
from mlagent_jax.generate.fused_qkv import fuse, fused_axes, fused_block
from mlagent_jax.generate.kv_cache import (
    PAGES,
    TRASH,
    Cache,
    LayerCache,
    Tiling,
    attend_pages,
    copy_pages,
    write_pages,
    write_tokens,
)
from mlagent_jax.generate.sampling import Knobs, log_probability, sample, uniforms, without_stops
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.qwen2 import (
    Params,
    abstract_params,
    final_norm,
    logical_axes,
    unembedding,
    unstack_layers,
)
from mlagent_jax.nn.precision import AS_WRITTEN
from mlagent_jax.nn.rope import rope_tables
from mlagent_jax.nn.vocabulary import hide_unused
from mlagent_jax.parallel.mesh import check_model_fits, replicated
from mlagent_jax.parallel.rules import RULES, constrain, spec

MAX_STOP_IDS = 32  # of one request: a checkpoint's own list of eos ids, and what a client adds

# Bytes of keys and values that decoding attends to at a time: the best for models of 1 to 135 million parameters on a
# core with 2 MiB of second-level cache.
_CPU_WORKING_SET = 256 * 1024

_SPLIT_ROWS = ("slots", None, None)
_SPLIT_COLUMNS = (None, None, "embed")


class Chunk(NamedTuple):
    """A piece of a prompt in each row: tokens [R,C], start and count [R] int32 (count 0: none), tables [R,n]."""

    tokens: Any
    start: Any
    count: Any
    tables: Any


class Slots(NamedTuple):
    """The requests that are decoded. tables [S,n]; length [S]: tokens in the cache; remaining [S]: of the answer.

    least [S]: tokens of it that come before any stop id may.

    token [S]: what follows those in the cache, and the first step goes on from. seed [S] uint32; knobs [S] each;
    stop_ids [S,MAX_STOP_IDS], padded with -1.
    limit: steps of this call; leave: whether to come back as soon as a row has ended.
    """

    tables: Any
    token: Any
    length: Any
    remaining: Any
    least: Any
    seed: Any
    knobs: Any
    stop_ids: Any
    limit: Any
    leave: Any


def empty_chunk(engine: EngineConfig, rows: int, size: int) -> Chunk:
    """On the host, to be filled in."""
    start, count = np.zeros((2, rows), np.int32)
    tables = np.full((rows, engine.table), TRASH, np.int32)
    return Chunk(np.zeros((rows, size), np.int32), start, count, tables)


def empty_slots(engine: EngineConfig, slots: int) -> Slots:
    """On the host, to be filled in: nothing is remaining in any slot."""
    token, length, remaining, least, top_k = np.zeros((5, slots), np.int32)
    temperature, min_p = np.zeros((2, slots), np.float32)
    return Slots(
        tables=np.full((slots, engine.table), TRASH, np.int32),
        token=token,
        length=length,
        remaining=remaining,
        least=least,
        seed=np.zeros(slots, np.uint32),
        knobs=Knobs(temperature, top_k, np.ones(slots, np.float32), min_p),
        stop_ids=np.full((slots, MAX_STOP_IDS), -1, np.int32),
        limit=np.int32(engine.steps),
        leave=np.bool_(False),
    )


class Decoded(NamedTuple):
    """tokens [S,steps] int32, logprobs [S,steps] float32, counts [S] int32: how many of a row's are real."""

    tokens: jax.Array
    logprobs: jax.Array
    counts: jax.Array


class Programs(NamedTuple):
    """load(params) -> weights; reset() -> Cache; prefill(weights, Cache, Chunk) -> Cache;
    copy(Cache, source [S], target [S]) -> Cache; decode(weights, Cache, Slots) -> (Cache, Decoded).

    The cache lies on the devices from call to call, and is donated to each. copy: page `source` of each slot's device
    to page `target`. weights, cache: shapes with shardings.
    """

    load: Any
    reset: Any
    prefill: Any
    copy: Any
    decode: Any
    weights: Any
    cache: Any


def shards_of(mesh: Mesh) -> int:
    """Groups of devices that have slots and pages of their own."""
    axes = RULES["slots"] or ()
    return int(np.prod([mesh.shape[axis] for axis in axes]))


@lru_cache
def compile_programs(model: Qwen2Config, engine: EngineConfig, mesh: Mesh) -> Programs:
    """Raises UserError where the model does not divide by the mesh."""
    check_model_fits(model, mesh)
    shards = shards_of(mesh)
    dtype = jnp.dtype(model.dtype)

    def engine_load(params: Params) -> Params:
        if jax.tree.structure(params) != jax.tree.structure(abstract_params(model)):  # type: ignore[operator]
            raise ValueError(
                f"these are not the parameters, adapters included, of the engine's model {model}"
            )
        params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
        layers = unstack_layers(model, params)
        return params | {"layers": [fuse(layer, mesh.shape["tensor"]) for layer in layers]}

    def engine_reset() -> Cache:
        shape = (shards * engine.pages_on(shards), model.num_key_value_heads, engine.page, model.head_dim)
        return [
            LayerCache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))
            for _ in range(model.num_hidden_layers)
        ]

    def engine_prefill(weights: Params, cache: Cache, chunk: Chunk) -> Cache:
        C = chunk.tokens.shape[1]
        offsets = jnp.arange(C)
        held = offsets < chunk.count[:, None]
        positions = chunk.start[:, None] + offsets
        blocks = jnp.arange(C // engine.page)
        pages = jnp.take_along_axis(chunk.tables, chunk.start[:, None] // engine.page + blocks, axis=1)
        pages = jnp.where(blocks * engine.page < chunk.count[:, None], pages, TRASH)
        seen = jnp.where(held, positions, -1)
        tiling = _prefill_tiling(engine, C, mesh)

        def attend_layer(layer: LayerCache) -> tuple[list[LayerCache], Attend]:
            written: list[LayerCache] = []

            def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
                k, v = (jnp.where(held[:, :, None, None], x, 0) for x in (k, v))  # as in `feed` below
                written.append(write_pages(layer, k, v, pages, mesh))
                return attend_pages(q, written[0], chunk.tables, seen, tiling, mesh)

            return written, attend

        # Nobody asks for the last layer's activations, so XLA leaves out all of it but its keys and values.
        return _through_layers(
            model, weights, cache, chunk.tokens, positions, attend_layer, _SPLIT_ROWS, mesh
        )[0]

    def engine_copy(cache: Cache, source: jax.Array, target: jax.Array) -> Cache:
        return [copy_pages(layer, source, target, mesh) for layer in cache]

    def engine_decode(weights: Params, cache: Cache, given: Slots) -> tuple[Cache, Decoded]:
        S, M = given.length.shape[0], engine.steps

        def running(loop: _Loop) -> jax.Array:
            ended = jnp.any(loop.ended & (given.remaining > 0))
            return (loop.made < given.limit) & ~jnp.all(loop.ended) & ~(given.leave & ended)

        def step(loop: _Loop) -> _Loop:
            made, out, live = loop.made, loop.out, ~loop.ended
            length = given.length + out.counts
            cache, hidden = feed(loop.cache, loop.token, length, live)
            # Float32, as the trainer's. Not before the loop, where the transpose of a tied embedding would be a copy.
            logits = jnp.matmul(hidden, unembedding(model, weights), preferred_element_type=jnp.float32)
            logits = constrain(logits, ("slots", None), mesh)
            logits = hide_unused(logits, model.unused_ids)
            allowed = without_stops(logits, given.stop_ids, out.counts < given.least)
            token, logprob = sample(allowed, uniforms(given.seed, length + 1), given.knobs)
            if engine.logprobs_mode == "raw_logprobs":
                logprob = log_probability(logits, token)
            out = Decoded(
                jax.lax.dynamic_update_slice(out.tokens, token[:, None], (0, made)),
                jax.lax.dynamic_update_slice(out.logprobs, logprob[:, None], (0, made)),
                out.counts + live,
            )
            stopped = jnp.any(token[:, None] == given.stop_ids, axis=1)
            ended = loop.ended | stopped | (out.counts >= given.remaining) | ~jnp.isfinite(logprob)
            return _Loop(made + 1, ended, cache, token, out)

        def feed(
            cache: Cache, token: jax.Array, length: jax.Array, live: jax.Array
        ) -> tuple[Cache, jax.Array]:
            """One token [S] of each row through the layers, at position `length` -> its last hidden state [S,D]."""
            page = jnp.take_along_axis(given.tables, length[:, None] // engine.page, axis=1)[:, 0]
            page, offset = jnp.where(live, page, TRASH), length % engine.page
            seen = jnp.where(live, length, -1)[:, None]

            def attend_layer(layer: LayerCache) -> tuple[list[LayerCache], Attend]:
                written: list[LayerCache] = []

                def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
                    # What is hidden must be finite all the same: it weighs 0, and 0 times NaN is NaN.
                    k, v = (jnp.where(live[:, None, None, None], x, 0) for x in (k, v))
                    written.append(write_tokens(layer, k, v, page, offset, mesh))
                    return attend_pages(
                        q, written[0], given.tables, seen, _decode_tiling(model, engine, mesh), mesh
                    )

                return written, attend

            cache, x = _through_layers(
                model,
                weights,
                cache,
                token[:, None],
                length[:, None],
                attend_layer,
                _SPLIT_COLUMNS,
                mesh,
            )
            return cache, constrain(final_norm(model, weights, x[:, 0]), (None, "embed"), mesh)

        nothing = Decoded(
            jnp.zeros((S, M), jnp.int32), jnp.zeros((S, M), jnp.float32), jnp.zeros(S, jnp.int32)
        )
        start = _Loop(jnp.zeros((), jnp.int32), given.remaining <= 0, cache, given.token, nothing)
        loop = jax.lax.while_loop(running, step, start)
        return loop.cache, loop.out

    on_mesh = lambda axes: NamedSharding(mesh, spec(axes))  # noqa: E731
    zeros = jax.eval_shape(engine_reset)
    cache = jax.tree.map(lambda _: on_mesh(PAGES), zeros)
    weights = _weight_shardings(model, mesh)
    abstract = jax.eval_shape(engine_load, abstract_params(model))
    everywhere = replicated(mesh)
    reset = jax.jit(engine_reset, out_shardings=cache)
    load = jax.jit(engine_load, out_shardings=weights)
    return Programs(
        load=load,
        reset=reset,
        prefill=jax.jit(engine_prefill, donate_argnums=1, out_shardings=cache, compiler_options=AS_WRITTEN),
        copy=jax.jit(engine_copy, donate_argnums=0, out_shardings=cache),
        decode=jax.jit(
            engine_decode, donate_argnums=1, out_shardings=(cache, everywhere), compiler_options=AS_WRITTEN
        ),
        weights=_shapes(abstract, weights),
        cache=_shapes(zeros, cache),
    )


def _decode_tiling(model: Qwen2Config, engine: EngineConfig, mesh: Mesh) -> Tiling:
    """All slots at a time on an accelerator; on a CPU, few enough that their keys and values stay in its cache."""
    if not _on_cpu(mesh):
        return Tiling(engine.span // engine.page)
    page_bytes = (
        2 * engine.page * model.num_key_value_heads * model.head_dim * jnp.dtype(model.dtype).itemsize
    )
    pages = max(1, _CPU_WORKING_SET // page_bytes)
    span = _span_within(engine, pages)
    return Tiling(span, group=pages // span)


def _prefill_tiling(engine: EngineConfig, size: int, mesh: Mesh) -> Tiling:
    """On a CPU no more keys at a time than the chunk has, half of which its tokens do not see as it is."""
    return Tiling(_span_within(engine, size // engine.page) if _on_cpu(mesh) else engine.span // engine.page)


def _span_within(engine: EngineConfig, pages: int) -> int:
    """Pages that a table has a multiple of: as many as can be, but no more than these or a span."""
    whole = engine.span // engine.page
    return max(n for n in range(1, whole + 1) if whole % n == 0 and n <= pages)


def _on_cpu(mesh: Mesh) -> bool:
    return bool(mesh.devices.flat[0].platform == "cpu")


Attend = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


class _Loop(NamedTuple):
    made: jax.Array  # [] steps taken
    ended: jax.Array  # [S] rows that have met a stop token or their limit, or are empty
    cache: Cache
    token: jax.Array  # [S] the last of each row, not yet in the cache
    out: Decoded


def _through_layers(
    model: Qwen2Config,
    weights: Params,
    cache: Cache,
    tokens: jax.Array,
    positions: jax.Array,
    attend_layer: Any,
    axes: tuple[str | None, ...],
    mesh: Mesh,
) -> tuple[Cache, jax.Array]:
    """tokens, positions [B,T] -> the cache with them, and their activations [B,T,D], which lie by `axes`."""
    rope = rope_tables(positions, model.head_dim, model.rope_theta)
    x = weights["embed"][tokens]
    updated: Cache = []
    for layer, layer_cache in zip(weights["layers"], cache, strict=True):
        written, attend = attend_layer(layer_cache)
        x = fused_block(model, mesh.shape["tensor"], layer)(constrain(x, axes, mesh), rope, attend)
        updated += written
    return updated, x


def _weight_shardings(model: Qwen2Config, mesh: Mesh) -> Any:
    is_axes = lambda node: isinstance(node, tuple)  # noqa: E731
    layers = [fused_axes(model, mesh.shape["tensor"])] * model.num_hidden_layers
    axes = logical_axes(model) | {"layers": layers}
    return jax.tree.map(lambda names: NamedSharding(mesh, spec(names)), axes, is_leaf=is_axes)


def _shapes(tree: Any, shardings: Any) -> Any:
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        tree,
        shardings,
    )

"""Generation for many prompts: fixed shapes, so few compilations; one device loop per batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mlagent_jax.generate.cache import Cache, LayerCache, attend_cache, empty_cache, write
from mlagent_jax.generate.sampling import SamplingParams, sample
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.qwen2 import Params, block, embed, final_norm, unembedding, unstack_layers
from mlagent_jax.nn.attention import attention
from mlagent_jax.nn.rope import rope_tables


@dataclass(frozen=True)
class Generation:
    """An answer: its tokens, the stop token included if there is one, and each one's log-probability when sampled."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    stopped: bool


@dataclass(frozen=True)
class Sampler:
    """Generates in batches of a fixed size, over prompts padded to one of `buckets`.

    A prompt's answer depends on the parameters, its own tokens and its seed alone, to the bit: a prompt always goes to
    the smallest bucket that holds it, a batch holds one bucket only, and batches are filled up with dummy rows.

    buckets: prompt lengths, each compiled once, tokens. batch_size: rows. stop_ids: tokens that end an answer.
    """

    config: Qwen2Config
    buckets: tuple[int, ...]
    batch_size: int
    max_new_tokens: int
    stop_ids: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "buckets", tuple(sorted(set(self.buckets))))
        object.__setattr__(self, "stop_ids", tuple(self.stop_ids))
        if not self.buckets or self.buckets[0] < 1:
            raise ValueError(f"buckets must hold prompt lengths of at least 1, got {self.buckets}")
        if self.batch_size < 1 or self.max_new_tokens < 1:
            raise ValueError(
                f"batch_size and max_new_tokens must be at least 1, got {self.batch_size} and {self.max_new_tokens}"
            )

    def generate(
        self,
        params: Params,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
    ) -> list[Generation]:
        """One answer for each prompt, in the order given; seeds[i] in [0, 2^32) fixes answer i.

        Raises ValueError for an empty prompt, one longer than the largest bucket, or a token outside the vocabulary.
        """
        if len(prompts) != len(seeds):
            raise ValueError(f"{len(prompts)} prompts but {len(seeds)} seeds")
        sampling = SamplingParams(temperature, top_k, top_p)
        by_bucket: dict[int, list[int]] = {}
        for i, prompt in enumerate(prompts):
            by_bucket.setdefault(self._bucket(i, prompt), []).append(i)
        answers: dict[int, Generation] = {}
        for bucket, members in sorted(by_bucket.items()):
            for start in range(0, len(members), self.batch_size):
                batch = members[start : start + self.batch_size]
                rows = self._generate_batch(
                    params, [prompts[i] for i in batch], [seeds[i] for i in batch], bucket, sampling
                )
                answers.update(zip(batch, rows, strict=True))
        return [answers[i] for i in range(len(prompts))]

    def _bucket(self, index: int, prompt: Sequence[int]) -> int:
        if not len(prompt):
            raise ValueError(f"prompt {index} is empty; it needs at least one token")
        if not 0 <= min(prompt) <= max(prompt) < self.config.vocab_size:
            raise ValueError(
                f"prompt {index} has token {min(prompt) if min(prompt) < 0 else max(prompt)}, outside the "
                f"vocabulary of {self.config.vocab_size}"
            )
        for bucket in self.buckets:
            if len(prompt) <= bucket:
                return bucket
        raise ValueError(
            f"prompt {index} has {len(prompt)} tokens; the largest bucket holds {self.buckets[-1]}"
        )

    def _generate_batch(
        self,
        params: Params,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        bucket: int,
        sampling: SamplingParams,
    ) -> list[Generation]:
        tokens = np.zeros((self.batch_size, bucket), np.int32)
        lengths = np.zeros(self.batch_size, np.int32)
        for row, prompt in enumerate(prompts):
            tokens[row, : len(prompt)] = prompt
            lengths[row] = len(prompt)
        row_seeds = np.zeros(self.batch_size, np.uint32)
        row_seeds[: len(seeds)] = np.asarray(seeds, np.int64).astype(np.uint32)
        cache, hidden = prefill(self.config, self.max_new_tokens, params, tokens, lengths)
        *out, _ = decode(
            self.config,
            self.max_new_tokens,
            self.stop_ids,
            sampling,
            params,
            cache,
            hidden,
            lengths,
            row_seeds,
        )
        produced, logprobs, counts = (np.asarray(x) for x in out)
        return [
            Generation(
                tuple(produced[row, : counts[row]].tolist()),
                tuple(logprobs[row, : counts[row]].tolist()),
                bool(produced[row, counts[row] - 1] in self.stop_ids),
            )
            for row in range(len(prompts))
        ]


class _Loop(NamedTuple):
    """What a decode step reads and writes; [B, ...] each."""

    step: jax.Array  # [] tokens made so far
    cache: Cache
    hidden: jax.Array  # [B,D] of the last token
    tokens: jax.Array  # [B,M] made so far
    logprobs: jax.Array  # [B,M]
    counts: jax.Array  # [B] tokens made before the row stopped
    done: jax.Array  # [B] bool


@partial(jax.jit, static_argnums=(0, 1))
def prefill(
    config: Qwen2Config, max_new_tokens: int, params: Params, tokens: jax.Array, lengths: jax.Array
) -> tuple[Cache, jax.Array]:
    """Reads right-padded prompts: tokens [B,P], lengths [B] (0 for a dummy row).

    Returns a cache with P + max_new_tokens slots, the first P filled, and the hidden state [B,D] of each last token.
    """
    B, P = tokens.shape
    slots = jnp.arange(P)
    segments = (slots < lengths[:, None]).astype(jnp.int32)
    rope = rope_tables(slots[None], config.head_dim, config.rope_theta)
    cache: Cache = []

    def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        cache.append(write(empty, k, v, 0))
        return attention(q, k, v, segments, backend=config.attention, query_chunk=config.query_chunk)

    x = embed(config, params, tokens)
    for layer, empty in zip(  # noqa: B007 (`attend` reads it)
        unstack_layers(config, params), empty_cache(config, B, P + max_new_tokens), strict=True
    ):
        x = block(config, layer)(x, rope, attend)
    last = jnp.take_along_axis(x, jnp.maximum(lengths - 1, 0)[:, None, None], axis=1)[:, 0]
    return cache, final_norm(config, params, last)


@partial(jax.jit, static_argnums=(0, 1, 2, 3), donate_argnums=(5,))
def decode(
    config: Qwen2Config,
    max_new_tokens: int,
    stop_ids: tuple[int, ...],
    sampling: SamplingParams,
    params: Params,
    cache: Cache,
    hidden: jax.Array,
    lengths: jax.Array,
    seeds: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array, Cache]:
    """Samples until every row has met a stop token or has max_new_tokens. Consumes `cache`.

    cache and hidden [B,D] as `prefill` leaves them, lengths [B] of the prompts (0: a dummy row, born done),
    seeds [B] uint32. Returns tokens [B,M] int32, logprobs [B,M] float32, counts [B] int32 of tokens that are real,
    and the cache (returned so that the donated buffers have somewhere to go, which saves a copy).
    """
    B, M = hidden.shape[0], max_new_tokens
    prompt_slots = cache[0].k.shape[2] - M
    slots = jnp.arange(prompt_slots + M)
    unembed = unembedding(config, params)
    layers = unstack_layers(config, params)
    stops = jnp.asarray(stop_ids, jnp.int32)

    def running(loop: _Loop) -> jax.Array:
        return (loop.step < M) & ~jnp.all(loop.done)

    def step(loop: _Loop) -> _Loop:
        token, logprob = sample(loop.hidden @ unembed, seeds, lengths + loop.step, sampling)
        tokens = jax.lax.dynamic_update_slice(loop.tokens, token[:, None], (0, loop.step))
        logprobs = jax.lax.dynamic_update_slice(loop.logprobs, logprob[:, None], (0, loop.step))
        counts = loop.counts + ~loop.done
        done = loop.done | jnp.any(token[:, None] == stops, axis=1)
        cache, hidden = feed(loop.cache, token, loop.step)
        return _Loop(loop.step + 1, cache, hidden, tokens, logprobs, counts, done)

    def feed(cache: Cache, token: jax.Array, made: jax.Array) -> tuple[Cache, jax.Array]:
        """Runs one token [B] of each row through the layers, into slot prompt_slots + made."""
        live = (slots < lengths[:, None]) | ((slots >= prompt_slots) & (slots <= prompt_slots + made))
        rope = rope_tables((lengths + made)[:, None], config.head_dim, config.rope_theta)
        updated: Cache = []

        def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
            updated.append(write(old, k, v, prompt_slots + made))
            return attend_cache(q, updated[-1], live)

        x = embed(config, params, token[:, None])
        old: LayerCache
        for layer, old in zip(layers, cache, strict=True):  # noqa: B007 (`attend` reads it)
            x = block(config, layer)(x, rope, attend)
        return updated, final_norm(config, params, x[:, 0])

    first = _Loop(
        step=jnp.zeros((), jnp.int32),
        cache=cache,
        hidden=hidden,
        tokens=jnp.zeros((B, M), jnp.int32),
        logprobs=jnp.zeros((B, M), jnp.float32),
        counts=jnp.zeros(B, jnp.int32),
        done=lengths == 0,
    )
    last = jax.lax.while_loop(running, step, first)
    return last.tokens, last.logprobs, last.counts, last.cache

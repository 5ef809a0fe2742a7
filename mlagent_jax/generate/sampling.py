"""Choosing the next token: temperature, top-k, top-p and min-p, or greedily, each row in its own way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

_BLOCK = 256  # tokens whose weights are summed before any running sum is taken
_LEAST = 1e-30  # of what logits are divided by; float32 ends at 1e-38, where the likeliest would become NaN


@dataclass(frozen=True)
class SamplingParams:
    """The distribution that is sampled. temperature 0 is greedy; top_k 0, top_p 1 and min_p 0 cut nothing off.

    Applied in the order temperature, top-k, top-p, min-p, as `transformers` does. min_p: the least probability a token
    may have, as a share of the likeliest one's. A temperature or top_p that float32 cannot hold is raised a little.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature must be at least 0 and finite, got {self.temperature}")
        if not 0 <= self.top_k < 2**31:
            raise ValueError(f"top_k must be at least 0 and below 2^31, got {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], got {self.top_p}")
        if not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p must be in [0, 1], got {self.min_p}")
        if self.temperature:
            object.__setattr__(self, "temperature", max(self.temperature, _LEAST))
        object.__setattr__(self, "top_p", max(self.top_p, _LEAST))


class Knobs(NamedTuple):
    """`SamplingParams` of B rows, on the host or a device: [B] each, float32 but for top_k int32."""

    temperature: Any
    top_k: Any
    top_p: Any
    min_p: Any


def uniforms(seeds: jax.Array, positions: jax.Array) -> jax.Array:
    """One number in [0, 1) for each row, made from the row's seed and position alone.

    seeds [B] uint32, positions [B] int -> [B] float32.
    """

    def one(seed: jax.Array, position: jax.Array) -> jax.Array:
        return jax.random.uniform(jax.random.fold_in(jax.random.key(seed), position))

    return jax.vmap(one)(seeds, positions)


def restrict(logits: jax.Array, knobs: Knobs) -> jax.Array:
    """logits [B,V] -> float32 logits of the distribution to sample: scaled, with -inf for what is cut off.

    Greedy rows are left at temperature 1, whole. The sort that top-k and top-p want is done only where a row asks for
    them; a row's result is the same, to the bit, whether or not another does.
    """
    greedy = knobs.temperature == 0
    logits = logits.astype(jnp.float32) / jnp.where(greedy, 1.0, knobs.temperature)[:, None]
    sorts = ~greedy & ((knobs.top_k > 0) | (knobs.top_p < 1))

    def least_kept(logits: jax.Array) -> jax.Array:
        descending = -jnp.sort(-logits, axis=-1)
        V = logits.shape[-1]
        k = jnp.where(knobs.top_k > 0, jnp.minimum(knobs.top_k, V), V)[:, None]
        kth = jnp.take_along_axis(descending, k - 1, axis=-1)
        descending = jnp.where(descending < kth, -jnp.inf, descending)
        probabilities = jax.nn.softmax(descending, axis=-1)
        before = jnp.cumsum(probabilities, axis=-1) - probabilities
        # A token stays while the likelier ones before it hold less than top_p, so the likeliest always stays.
        in_nucleus = (before < knobs.top_p[:, None]) | (knobs.top_p >= 1)[:, None]
        kept = in_nucleus & (descending > -jnp.inf)
        smallest = jnp.min(jnp.where(kept, descending, jnp.inf), axis=-1, keepdims=True)
        return jnp.where(sorts[:, None], smallest, -jnp.inf)

    def all_kept(logits: jax.Array) -> jax.Array:
        return jnp.full_like(logits[:, :1], -jnp.inf)

    least = jax.lax.cond(jnp.any(sorts), least_kept, all_kept, logits)
    by_min_p = jnp.max(logits, axis=-1, keepdims=True) + jnp.log(knobs.min_p)[:, None]
    least = jnp.maximum(least, jnp.where(greedy[:, None], -jnp.inf, by_min_p))
    return jnp.where(logits < least, -jnp.inf, logits)


def sample(logits: jax.Array, uniform: jax.Array, knobs: Knobs) -> tuple[jax.Array, jax.Array]:
    """One token for each row, and its log-probability under the distribution that was sampled.

    logits [B,V], uniform [B] in [0, 1). Returns tokens [B] int32, logprobs [B] float32. A greedy choice reports its
    log-probability at temperature 1.

    Samples by inverting the cumulative distribution: one random number a row, where the Gumbel trick needs V, which
    would cost as much as a small model on a CPU.
    """
    logits = restrict(logits, knobs)
    peak = jnp.max(logits, axis=-1, keepdims=True)
    weights = jnp.exp(logits - peak)
    greedy = knobs.temperature == 0
    tokens = jnp.where(greedy, _first(logits == peak), _at_share(weights, uniform))
    chosen = jnp.take_along_axis(weights, tokens[:, None], axis=-1)[:, 0]
    return tokens.astype(jnp.int32), jnp.log(chosen) - jnp.log(jnp.sum(weights, axis=-1))


def log_probability(logits: jax.Array, tokens: jax.Array) -> jax.Array:
    """logits [B,V], tokens [B] -> [B] float32: as the model gives it, whatever distribution was sampled."""
    logits = logits.astype(jnp.float32)
    chosen = jnp.take_along_axis(logits, tokens[:, None], axis=-1)[:, 0]
    return chosen - jax.nn.logsumexp(logits, axis=-1)


def without_stops(logits: jax.Array, stop_ids: jax.Array, early: jax.Array) -> jax.Array:
    """logits [B,V] with -inf at a row's stop_ids [B,n] (-1: none) where it is too early [B] for one."""
    V = logits.shape[-1]
    barred = jnp.where(early[:, None] & (stop_ids >= 0), stop_ids, V)

    def bar(logits: jax.Array) -> jax.Array:
        rows = jnp.arange(logits.shape[0])[:, None]
        return logits.at[rows, barred].set(-jnp.inf, mode="drop")

    return jax.lax.cond(jnp.any(barred < V), bar, lambda logits: logits, logits)


def _first(true: jax.Array) -> jax.Array:
    """[B,V] -> [B]: the first that is true, else the last of all. XLA's argmax is slow on a CPU."""
    V = true.shape[-1]
    return jnp.min(jnp.where(true, jnp.arange(V), V - 1), axis=-1)


def _at_share(weights: jax.Array, share: jax.Array) -> jax.Array:
    """weights [B,V], share [B] in [0, 1) -> [B]: the first at which the running sum exceeds this share of all.

    The running sum is taken of blocks, and then within the one that exceeds it: over all of V it would take many
    passes. Of NaNs none exceeds; the token is then the last.
    """
    B, V = weights.shape
    blocks = jnp.pad(weights, ((0, 0), (0, -V % _BLOCK))).reshape(B, -1, _BLOCK)
    ends = jnp.cumsum(jnp.sum(blocks, axis=-1), axis=-1)
    threshold = share * ends[:, -1]
    block = _first(ends > threshold[:, None])
    start = jnp.take_along_axis(ends, jnp.maximum(block - 1, 0)[:, None], axis=-1)[:, 0]
    within = jnp.cumsum(jnp.take_along_axis(blocks, block[:, None, None], axis=1)[:, 0], axis=-1)
    # Summed otherwise, the block may end a little earlier; its threshold stays below that, so that a weight above
    # zero is found.
    threshold = threshold - jnp.where(block > 0, start, 0.0)
    threshold = jnp.minimum(threshold, jnp.nextafter(within[:, -1], 0.0))
    return jnp.minimum(block * _BLOCK + _first(within > threshold[:, None]), V - 1)

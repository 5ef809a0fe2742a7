"""Choosing the next token: temperature, top-k, top-p, or greedily."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp


@dataclass(frozen=True)
class SamplingParams:
    """The distribution that is sampled. temperature 0 means greedy; top_k 0 and top_p 1 mean unrestricted.

    Applied in the order temperature, top-k, top-p, as `transformers` does.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"temperature must not be negative, got {self.temperature}")
        if self.top_k < 0:
            raise ValueError(f"top_k must not be negative, got {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], got {self.top_p}")

    @property
    def method(self) -> Method:
        return Method(greedy=self.temperature == 0, top_k=self.top_k, nucleus=self.top_p < 1)


class Method(NamedTuple):
    """What of `SamplingParams` decides the computation; the numbers can then change without compiling anew."""

    greedy: bool
    top_k: int
    nucleus: bool


def uniforms(seeds: jax.Array, positions: jax.Array) -> jax.Array:
    """One number in [0, 1) for each row and position, made from the row's seed and that position alone.

    seeds [B] uint32, positions [B,M] int -> [B,M] float32.
    """

    def one(seed: jax.Array, position: jax.Array) -> jax.Array:
        return jax.random.uniform(jax.random.fold_in(jax.random.key(seed), position))

    return jax.vmap(jax.vmap(one, in_axes=(None, 0)))(seeds, positions)


def restrict(logits: jax.Array, method: Method, temperature: jax.Array, top_p: jax.Array) -> jax.Array:
    """logits [B,V] -> float32 logits of the distribution to sample: scaled, with -inf for what is cut off."""
    logits = logits.astype(jnp.float32) / temperature
    if 0 < method.top_k < logits.shape[-1]:
        kth = jax.lax.top_k(logits, method.top_k)[0][:, -1:]
        logits = jnp.where(logits < kth, -jnp.inf, logits)
    if method.nucleus:
        descending = -jnp.sort(-logits, axis=-1)
        probabilities = jax.nn.softmax(descending, axis=-1)
        before = jnp.cumsum(probabilities, axis=-1) - probabilities
        # A token stays while the likelier ones before it hold less than top_p, so the likeliest always stays.
        smallest = jnp.min(jnp.where(before < top_p, descending, jnp.inf), axis=-1, keepdims=True)
        logits = jnp.where(logits < smallest, -jnp.inf, logits)
    return logits


def sample(
    logits: jax.Array, uniform: jax.Array, method: Method, temperature: jax.Array, top_p: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """One token for each row, and its log-probability under the distribution that was sampled.

    logits [B,V], uniform [B] in [0, 1). Returns tokens [B] int32, logprobs [B] float32. A greedy choice reports its
    log-probability at temperature 1.

    Samples by inverting the cumulative distribution: one random number a row, where the Gumbel trick needs V, which
    would cost as much as the model on a CPU.
    """
    logits = logits.astype(jnp.float32) if method.greedy else restrict(logits, method, temperature, top_p)
    weights = jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True))
    if method.greedy:
        tokens = jnp.argmax(logits, axis=-1)
        total = jnp.sum(weights, axis=-1)
    else:
        cumulative = jnp.cumsum(weights, axis=-1)
        total = cumulative[:, -1]
        # The first token whose cumulative weight exceeds the threshold. As the threshold is less than the total,
        # there is one; as the sum grows at it, its weight is not zero.
        tokens = jnp.sum(cumulative <= (uniform * total)[:, None], axis=-1)
    chosen = jnp.take_along_axis(weights, tokens[:, None], axis=-1)[:, 0]
    return tokens.astype(jnp.int32), jnp.log(chosen) - jnp.log(total)

"""Choosing the next token: temperature, top-k, top-p, or greedily."""

from __future__ import annotations

from dataclasses import dataclass

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


def restrict(logits: jax.Array, params: SamplingParams) -> jax.Array:
    """logits [B,V] -> float32 logits of the distribution to sample: scaled, with -inf for what is cut off."""
    logits = logits.astype(jnp.float32) / params.temperature
    if params.top_k and params.top_k < logits.shape[-1]:
        kth = jax.lax.top_k(logits, params.top_k)[0][:, -1:]
        logits = jnp.where(logits < kth, -jnp.inf, logits)
    if params.top_p < 1:
        descending = -jnp.sort(-logits, axis=-1)
        probabilities = jax.nn.softmax(descending, axis=-1)
        before = jnp.cumsum(probabilities, axis=-1) - probabilities
        # A token stays while the more likely ones before it hold less than top_p, so the likeliest always stays.
        smallest = jnp.min(jnp.where(before < params.top_p, descending, jnp.inf), axis=-1, keepdims=True)
        logits = jnp.where(logits < smallest, -jnp.inf, logits)
    return logits


def sample(
    logits: jax.Array, seeds: jax.Array, positions: jax.Array, params: SamplingParams
) -> tuple[jax.Array, jax.Array]:
    """One token for each row, and its log-probability under the distribution that was sampled.

    logits [B,V], seeds and positions [B] int. A row's randomness is made from its seed and the position of the token,
    and from nothing else in the batch. Returns tokens [B] int32, logprobs [B] float32. A greedy choice reports its
    log-probability at temperature 1.
    """
    if params.temperature == 0:
        tokens = jnp.argmax(logits, axis=-1)
        logits = logits.astype(jnp.float32)
    else:
        logits = restrict(logits, params)
        tokens = jax.vmap(_gumbel_argmax)(logits, seeds, positions)
    chosen = jnp.take_along_axis(logits, tokens[:, None], axis=-1)[:, 0]
    return tokens.astype(jnp.int32), chosen - jax.nn.logsumexp(logits, axis=-1)


def _gumbel_argmax(logits: jax.Array, seed: jax.Array, position: jax.Array) -> jax.Array:
    key = jax.random.fold_in(jax.random.key(seed), position)
    return jnp.argmax(logits + jax.random.gumbel(key, logits.shape), axis=-1)

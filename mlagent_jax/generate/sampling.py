"""Choosing the next token of each row: temperature, top-k, top-p and min-p, or greedily."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, Int32, UInt32

ArrayT = TypeVar("ArrayT", np.ndarray, jax.Array)  # on the host or on a device

_BLOCK = 256  # tokens whose weights are summed before any running sum
_SMALLEST = 1e-30  # divisor of logits; float32 ends at 1e-38, where the most likely token would become NaN


@dataclass(frozen=True)
class SamplingParams:
    """The distribution to sample from. temperature 0 is greedy; top_k 0, top_p 1 and min_p 0 exclude nothing.

    They are applied in the order temperature, top-k, top-p, min-p, as in `transformers`. min_p: the smallest
    probability a token may have, as a share of the most likely token's. A temperature or top_p too small for float32
    is raised to 1e-30. Raises ValueError for values out of range.
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
            object.__setattr__(self, "temperature", max(self.temperature, _SMALLEST))
        object.__setattr__(self, "top_p", max(self.top_p, _SMALLEST))


class SamplingMetadata(NamedTuple, Generic[ArrayT]):
    """`SamplingParams` of B rows, as arrays."""

    temperature: Float32[ArrayT, " B"]
    top_k: Int32[ArrayT, " B"]
    top_p: Float32[ArrayT, " B"]
    min_p: Float32[ArrayT, " B"]


def uniforms(seeds: UInt32[Array, " B"], positions: Int[Array, " B"]) -> Float32[Array, " B"]:
    """A number in [0, 1) for each row, which depends on the row's seed and position only."""

    def one(seed: UInt32[Array, ""], position: Int[Array, ""]) -> Float32[Array, ""]:
        return jax.random.uniform(jax.random.fold_in(jax.random.key(seed), position))

    return jax.vmap(one)(seeds, positions)


def process_logits(logits: Float[Array, "B V"], sampling: SamplingMetadata[Array]) -> Float32[Array, "B V"]:
    """Logits of the distribution to sample from: scaled, with -inf for excluded tokens.

    Greedy rows keep temperature 1 and all tokens. The sort for top-k and top-p runs only if a row needs it; a row's
    result does not depend on that by a single bit.
    """
    greedy = sampling.temperature == 0
    logits = logits.astype(jnp.float32) / jnp.where(greedy, 1.0, sampling.temperature)[:, None]
    needs_sort = ~greedy & ((sampling.top_k > 0) | (sampling.top_p < 1))

    def smallest_kept(logits: Float32[Array, "B V"]) -> Float32[Array, "B 1"]:
        descending = -jnp.sort(-logits, axis=-1)
        V = logits.shape[-1]
        k = jnp.where(sampling.top_k > 0, jnp.minimum(sampling.top_k, V), V)[:, None]
        kth = jnp.take_along_axis(descending, k - 1, axis=-1)
        descending = jnp.where(descending < kth, -jnp.inf, descending)
        probabilities = jax.nn.softmax(descending, axis=-1)
        before = jnp.cumsum(probabilities, axis=-1) - probabilities
        # A token stays while the more likely ones before it sum to less than top_p, so the most likely always stays.
        in_nucleus = (before < sampling.top_p[:, None]) | (sampling.top_p >= 1)[:, None]
        kept = in_nucleus & (descending > -jnp.inf)
        smallest = jnp.min(jnp.where(kept, descending, jnp.inf), axis=-1, keepdims=True)
        return jnp.where(needs_sort[:, None], smallest, -jnp.inf)

    def keep_all(logits: Float32[Array, "B V"]) -> Float32[Array, "B 1"]:
        return jnp.full_like(logits[:, :1], -jnp.inf)

    threshold = jax.lax.cond(jnp.any(needs_sort), smallest_kept, keep_all, logits)
    by_min_p = jnp.max(logits, axis=-1, keepdims=True) + jnp.log(sampling.min_p)[:, None]
    threshold = jnp.maximum(threshold, jnp.where(greedy[:, None], -jnp.inf, by_min_p))
    return jnp.where(logits < threshold, -jnp.inf, logits)


def sample(
    logits: Float[Array, "B V"], uniform: Float32[Array, " B"], sampling: SamplingMetadata[Array]
) -> tuple[Int32[Array, " B"], Float32[Array, " B"]]:
    """A token for each row, and its log-probability under the distribution it was sampled from.

    uniform: in [0, 1). A greedy token's log-probability is that at temperature 1.

    The cumulative distribution is inverted, which takes one random number per row. The Gumbel trick takes V of them,
    and on a CPU that costs as much as a small model.
    """
    logits = process_logits(logits, sampling)
    peak = jnp.max(logits, axis=-1, keepdims=True)
    weights = jnp.exp(logits - peak)
    greedy = sampling.temperature == 0
    tokens = jnp.where(greedy, _first_true(logits == peak), _invert_cdf(weights, uniform))
    chosen = jnp.take_along_axis(weights, tokens[:, None], axis=-1)[:, 0]
    return tokens.astype(jnp.int32), jnp.log(chosen) - jnp.log(jnp.sum(weights, axis=-1))


def raw_logprobs(logits: Float[Array, "B V"], tokens: Int32[Array, " B"]) -> Float32[Array, " B"]:
    """Log-probabilities under the model's own distribution, whatever was sampled from."""
    logits = logits.astype(jnp.float32)
    chosen = jnp.take_along_axis(logits, tokens[:, None], axis=-1)[:, 0]
    return chosen - jax.nn.logsumexp(logits, axis=-1)


def mask_stop_ids(
    logits: Float[Array, "B V"], stop_ids: Int32[Array, "B n"], masked: Bool[Array, " B"]
) -> Float[Array, "B V"]:
    """-inf for the stop ids of the rows that are `masked`. stop_ids: padded with -1."""
    V = logits.shape[-1]
    columns = jnp.where(masked[:, None] & (stop_ids >= 0), stop_ids, V)

    def mask(logits: Float[Array, "B V"]) -> Float[Array, "B V"]:
        rows = jnp.arange(logits.shape[0])[:, None]
        return logits.at[rows, columns].set(-jnp.inf, mode="drop")

    return jax.lax.cond(jnp.any(columns < V), mask, lambda logits: logits, logits)


def _first_true(flags: Bool[Array, "B V"]) -> Int32[Array, " B"]:
    """The index of the first True, or V - 1 if there is none. XLA's argmax is slow on a CPU."""
    V = flags.shape[-1]
    return jnp.min(jnp.where(flags, jnp.arange(V), V - 1), axis=-1)


def _invert_cdf(weights: Float32[Array, "B V"], share: Float32[Array, " B"]) -> Int32[Array, " B"]:
    """The first index at which the running sum of the weights exceeds `share`, in [0, 1), of their total.

    The running sum is taken over blocks, and then within the block that exceeds it: over all V it would take many
    passes. With NaNs nothing exceeds it, and the result is V - 1.
    """
    B, V = weights.shape
    blocks = jnp.pad(weights, ((0, 0), (0, -V % _BLOCK))).reshape(B, -1, _BLOCK)
    ends = jnp.cumsum(jnp.sum(blocks, axis=-1), axis=-1)
    threshold = share * ends[:, -1]
    block = _first_true(ends > threshold[:, None])
    start = jnp.take_along_axis(ends, jnp.maximum(block - 1, 0)[:, None], axis=-1)[:, 0]
    within = jnp.cumsum(jnp.take_along_axis(blocks, block[:, None, None], axis=1)[:, 0], axis=-1)
    # Summed in another order, the block may end slightly earlier. The threshold is kept below that end, so that a
    # weight above zero is found.
    threshold = threshold - jnp.where(block > 0, start, 0.0)
    threshold = jnp.minimum(threshold, jnp.nextafter(within[:, -1], 0.0))
    return jnp.minimum(block * _BLOCK + _first_true(within > threshold[:, None]), V - 1)

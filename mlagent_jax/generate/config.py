"""The size of a generation engine, from which everything it compiles follows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from mlagent_jax.errors import UserError
from mlagent_jax.fields import check, setting

# What one more call is taken to cost, in tokens, whatever it reads: the weights come from memory again.
_CALL_TOKENS = 64
LOGPROBS_MODES = ("processed_logprobs", "raw_logprobs")


@dataclass(frozen=True)
class EngineConfig:
    """All in tokens, but for the slots. A result depends on these, to the last bit, and not on what else is running.

    slots: requests that are decoded at once. On a mesh they are rounded up to a multiple of its devices.
    max_length: of a prompt with its answer.
    cache_tokens: what the key-value cache holds in all; requests wait where it is full. 0: `slots` of `max_length`.
    page: the cache is given out, and shared between requests, by pages of this size.
    chunks: lengths that prompts are read in: as many of the longest as go, then what costs least for the rest.
    span: of keys that attention takes at a time; fewer on a CPU, where its cache decides.
    steps: decoded in one call, between two looks at what has arrived.
    reads: calls that read prompts between two that decode, while answers are under way; more make the most of all
        slots, fewer (and a quarter of the steps meanwhile) keep those who listen from waiting. 0: until no slot is
        free or nobody waits.
    logprobs_mode: of the tokens that were sampled, in vLLM's words. "processed_logprobs": under the distribution they
        were sampled from, after temperature, top-k, top-p and min-p (greedy: at temperature 1), which trainers need.
        "raw_logprobs": under the model's own, whatever the sampling, which OpenAI's clients take them for.
    """

    slots: int = setting(32, at_least=1)
    max_length: int = setting(15_000, at_least=2)
    cache_tokens: int = setting(0, at_least=0)
    page: int = setting(64, at_least=1)
    chunks: tuple[int, ...] = setting((64, 128, 256, 512), at_least=1, filled=True)
    span: int = setting(512, at_least=1)
    steps: int = setting(16, at_least=1)
    reads: int = setting(0, at_least=0)
    logprobs_mode: str = setting("processed_logprobs", choices=LOGPROBS_MODES)

    def __post_init__(self) -> None:
        check(self, "engine")
        object.__setattr__(self, "chunks", tuple(sorted(set(self.chunks))))
        if any(size % self.page for size in self.chunks):
            raise UserError(f"chunks {self.chunks} of the engine must be multiples of its page, {self.page}")
        if self.span % self.page:
            raise UserError(f"span {self.span} of the engine must be a multiple of its page, {self.page}")
        if self.cache_tokens and self.cache_tokens < self.pages_of(self.max_length) * self.page:
            raise UserError(
                f"cache_tokens {self.cache_tokens} of the engine do not hold one request of max_length "
                f"{self.max_length}"
            )

    def slots_on(self, shards: int) -> int:
        """Of each of the shards."""
        return -(-self.slots // shards)

    def pages_on(self, shards: int) -> int:
        """Of each of the shards: the trash, and one that a sample's copy of the end of its prompt may need."""
        whole = self.pages_of(self.max_length)
        if not self.cache_tokens:
            return self.slots_on(shards) * whole + 2
        return max(whole, self.cache_tokens // self.page // shards) + 2

    def chunk_at(self, start: int, length: int) -> tuple[int, int]:
        """The size of the chunk that position `start` of a prompt of that length is read in, and where it ends."""
        longest = self.chunks[-1]
        end = start // longest * longest
        if length - end >= longest:
            return longest, end + longest
        for size in _cheapest(self.chunks, length - end):
            end += size
            if start < end:
                return size, min(end, length)
        raise ValueError(f"position {start} is not in a prompt of {length}")

    def pages_of(self, length: int) -> int:
        return -(-length // self.page)

    @property
    def table(self) -> int:
        """Entries of a request's table: pages of the longest one, in whole spans."""
        span = self.span // self.page
        return -(-self.pages_of(self.max_length) // span) * span


@lru_cache(maxsize=4096)
def _cheapest(sizes: tuple[int, ...], tokens: int) -> tuple[int, ...]:
    """The chunks to read so many tokens in, the longest first, of sizes in ascending order."""
    unit = math.gcd(*sizes)
    ways: list[tuple[int, ...]] = [()]  # for 0, 1, 2, ... units
    for units in range(1, -(-tokens // unit) + 1):
        begun = [(size, *ways[max(0, units - size // unit)]) for size in reversed(sizes)]
        ways.append(min(begun, key=lambda way: sum(way) + _CALL_TOKENS * len(way)))
    return ways[-1]

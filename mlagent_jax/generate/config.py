"""The sizes of a generation engine; they decide everything it compiles."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from mlagent_jax.errors import UserError
from mlagent_jax.fields import check, setting

# The cost of one more prefill call, in tokens: however short the chunk, the call reads all weights from memory.
_CALL_COST = 64
LOGPROBS_MODES = ("processed_logprobs", "raw_logprobs")


@dataclass(frozen=True)
class EngineConfig:
    """Lengths are in tokens. An answer depends on these values to the last bit, but not on what else is running.

    slots: requests that are decoded at once (vLLM's max_num_seqs). On a mesh they are rounded up to a multiple of its
        devices.
    max_length: of a prompt with its answer (vLLM's max_model_len).
    cache_tokens: size of the key-value cache; requests wait while it is full. 0: `slots` times `max_length`.
    page_size: the cache is allocated, and shared between requests, in pages of this many tokens (vLLM's
        block_size).
    prefill_chunks: lengths of the chunks in which prompts are prefilled. A prompt is cut into as many of the longest as
        fit, and the rest into what costs least.
    block_kv: keys that attention takes at a time; smaller values suit a CPU, where its cache is the limit.
    decode_steps: tokens that are decoded in one call, before new requests are admitted.
    max_prefills_per_step: prefill calls between two decode calls while answers are under way. A large value makes the
        most of all slots. A small one keeps the pause between the tokens of an answer short; decode calls then take a
        quarter of `decode_steps` while prompts wait. 0: until no slot is free or no request waits.
    logprobs_mode: of the sampled tokens, with vLLM's names. "processed_logprobs": under the distribution that they were
        sampled from, after temperature, top-k, top-p and min-p (greedy: at temperature 1), which trainers need.
        "raw_logprobs": under the model's own distribution, as OpenAI's clients expect.

    Raises UserError for values that do not go together.
    """

    slots: int = setting(32, at_least=1)
    max_length: int = setting(15_000, at_least=2)
    cache_tokens: int = setting(0, at_least=0)
    page_size: int = setting(64, at_least=1)
    prefill_chunks: tuple[int, ...] = setting((64, 128, 256, 512), at_least=1, filled=True)
    block_kv: int = setting(512, at_least=1)
    decode_steps: int = setting(16, at_least=1)
    max_prefills_per_step: int = setting(0, at_least=0)
    logprobs_mode: str = setting("processed_logprobs", choices=LOGPROBS_MODES)

    def __post_init__(self) -> None:
        check(self, "engine")
        object.__setattr__(self, "prefill_chunks", tuple(sorted(set(self.prefill_chunks))))
        if any(size % self.page_size for size in self.prefill_chunks):
            raise UserError(
                f"prefill_chunks {self.prefill_chunks} of the engine must be multiples of its page_size, "
                f"{self.page_size}"
            )
        if self.block_kv % self.page_size:
            raise UserError(
                f"block_kv {self.block_kv} of the engine must be a multiple of its page_size, {self.page_size}"
            )
        if self.cache_tokens and self.cache_tokens < self.pages_for(self.max_length) * self.page_size:
            raise UserError(
                f"cache_tokens {self.cache_tokens} of the engine do not hold one request of max_length "
                f"{self.max_length}"
            )

    def slots_per_shard(self, shards: int) -> int:
        return -(-self.slots // shards)

    def pages_per_shard(self, shards: int) -> int:
        """The pages of one shard: the null page and one for a sample's copy of the end of its prompt are among them."""
        longest = self.pages_for(self.max_length)
        if not self.cache_tokens:
            return self.slots_per_shard(shards) * longest + 2
        return max(longest, self.cache_tokens // self.page_size // shards) + 2

    def chunk_at(self, start: int, length: int) -> tuple[int, int]:
        """The chunk that holds position `start` of a prompt of this length: its size, and where it ends."""
        longest = self.prefill_chunks[-1]
        end = start // longest * longest
        if length - end >= longest:
            return longest, end + longest
        for size in _cheapest_chunks(self.prefill_chunks, length - end):
            end += size
            if start < end:
                return size, min(end, length)
        raise ValueError(f"position {start} is not in a prompt of {length}")

    def pages_for(self, length: int) -> int:
        """Pages that hold `length` tokens."""
        return -(-length // self.page_size)

    @property
    def pages_per_block(self) -> int:
        """Pages in a block of `block_kv` keys."""
        return self.block_kv // self.page_size

    @property
    def page_table_length(self) -> int:
        """Pages of the longest request, rounded up to whole blocks of keys."""
        return -(-self.pages_for(self.max_length) // self.pages_per_block) * self.pages_per_block


@lru_cache(maxsize=4096)
def _cheapest_chunks(sizes: tuple[int, ...], tokens: int) -> tuple[int, ...]:
    """The cheapest chunks that hold this many tokens, the longest first. sizes: in ascending order."""
    unit = math.gcd(*sizes)
    best: list[tuple[int, ...]] = [()]  # for 0, 1, 2, ... units
    for units in range(1, -(-tokens // unit) + 1):
        candidates = [(size, *best[max(0, units - size // unit)]) for size in reversed(sizes)]
        best.append(min(candidates, key=lambda chunks: sum(chunks) + _CALL_COST * len(chunks)))
    return best[-1]

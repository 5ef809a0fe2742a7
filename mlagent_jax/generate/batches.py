"""What the engine's programs take and return."""

from __future__ import annotations

from typing import Generic, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int32, UInt32

from mlagent_jax.generate.config import EngineConfig
from mlagent_jax.generate.kv_cache import NULL_PAGE
from mlagent_jax.generate.sampling import ArrayT, SamplingMetadata

MAX_STOP_IDS = 32  # of one request: a checkpoint's own list of eos ids, and those that a client adds


class PrefillBatch(NamedTuple, Generic[ArrayT]):
    """One chunk of a prompt in each of R rows.

    tokens: C of them, padded. start: the position of the first one. num_tokens: how many are not padding; 0 for a row
    without a chunk. page_tables: NULL_PAGE after the request's own pages.
    """

    tokens: Int32[ArrayT, "R C"]
    start: Int32[ArrayT, " R"]
    num_tokens: Int32[ArrayT, " R"]
    page_tables: Int32[ArrayT, "R n"]


class DecodeBatch(NamedTuple, Generic[ArrayT]):
    """The requests in S slots.

    length: tokens in the cache. token: the one after these, from which decoding continues. remaining: tokens that the
    answer may still get; 0 for an empty slot. min_tokens: tokens that must still come before a stop id. stop_ids:
    padded with -1. max_steps: tokens to decode in this call. exit_on_finish: return as soon as one of the requests has
    ended.
    """

    page_tables: Int32[ArrayT, "S n"]
    token: Int32[ArrayT, " S"]
    length: Int32[ArrayT, " S"]
    remaining: Int32[ArrayT, " S"]
    min_tokens: Int32[ArrayT, " S"]
    seed: UInt32[ArrayT, " S"]
    sampling: SamplingMetadata[ArrayT]
    stop_ids: Int32[ArrayT, "S {MAX_STOP_IDS}"]
    max_steps: Int32[ArrayT, ""]
    exit_on_finish: Bool[ArrayT, ""]


class DecodeOutput(NamedTuple, Generic[ArrayT]):
    """M steps of S slots. counts: how many of a slot's tokens are real."""

    tokens: Int32[ArrayT, "S M"]
    logprobs: Float32[ArrayT, "S M"]
    counts: Int32[ArrayT, " S"]


def empty_prefill_batch(config: EngineConfig, rows: int, size: int) -> PrefillBatch[np.ndarray]:
    """Rows without a chunk, on the host, to be filled in. size: of a chunk."""
    start, count = np.zeros((2, rows), np.int32)
    page_tables = np.full((rows, config.page_table_length), NULL_PAGE, np.int32)
    return PrefillBatch(np.zeros((rows, size), np.int32), start, count, page_tables)


def empty_decode_batch(config: EngineConfig, slots: int) -> DecodeBatch[np.ndarray]:
    """Empty slots, on the host, to be filled in."""
    token, length, remaining, min_tokens, top_k = np.zeros((5, slots), np.int32)
    temperature, min_p = np.zeros((2, slots), np.float32)
    return DecodeBatch(
        page_tables=np.full((slots, config.page_table_length), NULL_PAGE, np.int32),
        token=token,
        length=length,
        remaining=remaining,
        min_tokens=min_tokens,
        seed=np.zeros(slots, np.uint32),
        sampling=SamplingMetadata(temperature, top_k, np.ones(slots, np.float32), min_p),
        stop_ids=np.full((slots, MAX_STOP_IDS), -1, np.int32),
        max_steps=np.array(config.decode_steps, np.int32),
        exit_on_finish=np.array(False),
    )

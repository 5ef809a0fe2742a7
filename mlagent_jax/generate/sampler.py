"""Generation for many prompts, in batches of fixed shapes, so that little is compiled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from mlagent_jax.generate.decode import decode
from mlagent_jax.generate.prefill import prefill
from mlagent_jax.generate.sampling import SamplingParams
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.qwen2 import Params
from mlagent_jax.parallel.mesh import replicated


@lru_cache
def compile_copy(dtype: str, mesh: Mesh) -> Any:
    """The jitted function behind `Sampler.copy_params`."""

    def sampler_copy(params: Params) -> Params:
        return jax.tree.map(lambda leaf: leaf.astype(dtype), params)

    return jax.jit(sampler_copy, out_shardings=replicated(mesh))


@dataclass(frozen=True)
class Generation:
    """An answer: its tokens, with the stop token if there was one, and the log-probability of each as sampled.

    stopped: False if it was cut off at the sampler's max_new_tokens.
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    stopped: bool


@dataclass(frozen=True)
class Sampler:
    """Generates in batches of `batch_size` rows, over prompts padded to one of `buckets` lengths.

    An answer depends on the parameters, its own prompt and its seed alone, to the bit: a prompt goes to the
    smallest bucket that holds it, a batch holds one bucket only, and is filled up with dummy rows. Each bucket
    compiles once. stop_ids: tokens that end an answer.
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
        for name in ("batch_size", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    def copy_params(self, params: Params, mesh: Mesh) -> Params:
        """What to generate with: `params` from all over the mesh, whole on this process's first device.

        In the dtype of computation: each use would cast them to it anyway. All processes must call it.
        """
        whole = compile_copy(self.config.dtype, mesh)(params)
        return whole if mesh.size == 1 else jax.tree.map(lambda leaf: leaf.addressable_data(0), whole)

    def generate(
        self,
        params: Params,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
    ) -> list[Generation]:
        """One answer for each prompt, in the order given; seeds[i], taken modulo 2^32, fixes answer i.

        temperature 0 is greedy. Raises ValueError for an empty prompt, one longer than the largest bucket, or a
        token outside the vocabulary.
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
        for token in (min(prompt), max(prompt)):
            if not 0 <= token < self.config.vocab_size:
                raise ValueError(
                    f"prompt {index} has token {token}, outside the vocabulary of {self.config.vocab_size}"
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
        row_seeds = np.zeros(self.batch_size, np.uint32)
        for row, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
            tokens[row, : len(prompt)] = prompt
            lengths[row] = len(prompt)
            row_seeds[row] = seed % 2**32
        cache, hidden = prefill(self.config, self.max_new_tokens, params, tokens, lengths)
        out = decode(
            self.config,
            self.max_new_tokens,
            self.stop_ids,
            sampling.method,
            params,
            cache,
            hidden,
            lengths,
            row_seeds,
            np.float32(sampling.temperature),
            np.float32(sampling.top_p),
        )
        produced, logprobs = np.asarray(out.tokens), np.asarray(out.logprobs)
        return [
            Generation(
                tuple(produced[row, :count].tolist()),
                tuple(logprobs[row, :count].tolist()),
                stopped=bool(produced[row, count - 1] in self.stop_ids),
            )
            for row, count in enumerate(np.asarray(out.counts)[: len(prompts)])
        ]

"""Continuous batching: requests come and go, and each is decoded in its own slot while others are prefilled or wait.

An answer depends on the weights, the prompt, its seed and its sampling parameters only, to the last bit: not on the
other requests in the batch, the order of arrival, or what was found in the cache. For this, the length of a prompt
alone decides the chunks in which it is prefilled, and cached tokens are shared only where both requests would have
computed them in a chunk of the same length. Decoded tokens are not shared: as part of the next turn's prompt they
would be prefilled, and rounded differently. The last token of a prompt is not prefilled; decoding begins with it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from jax.sharding import Mesh

from mlagent_jax.generate.batches import (
    MAX_STOP_IDS,
    DecodeBatch,
    empty_decode_batch,
    empty_prefill_batch,
)
from mlagent_jax.generate.config import EngineConfig
from mlagent_jax.generate.engine_setup import num_shards
from mlagent_jax.generate.kv_cache import NULL_PAGE
from mlagent_jax.generate.model_runner import ModelRunner
from mlagent_jax.generate.request import Generation, Request, RequestError, Sample
from mlagent_jax.generate.sampling import SamplingMetadata, SamplingParams
from mlagent_jax.generate.shard import PendingRequest, RunningSample, Shard
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.params import Params

T = TypeVar("T")


@dataclass
class Counts:
    """Tokens since the engine was made: prefilled, reused from the cache, and decoded."""

    prefilled: int = 0
    reused: int = 0
    decoded: int = 0


class Engine:
    """Generates with `model` on `mesh`. Not thread-safe. Call `load` before any other method.

    Where the mesh spans several processes, the first one makes all calls except `load`, `unload` and `on_main`.
    """

    def __init__(self, model: Qwen2Config, config: EngineConfig, mesh: Mesh):
        self.model, self.config, self.counts = model, config, Counts()
        self._runner = ModelRunner(model, config, mesh)
        shards = num_shards(mesh)
        self._shards = [
            Shard(config.slots_per_shard(shards), config.pages_per_shard(shards)) for _ in range(shards)
        ]

    def load(self, params: Params) -> None:
        """Replaces the weights, adapters included, by `params`, which are split as in training.

        All processes must call this. Raises RuntimeError while requests are in progress.
        """
        if not self.idle:
            raise RuntimeError("weights cannot change while requests are in progress")
        for shard in self._shards:
            shard.pool.reset_prefix_cache()
        self._runner.load(params)

    def unload(self) -> None:
        """Frees the devices' memory until the next `load`. All processes must call this."""
        for shard in self._shards:
            shard.pool.reset_prefix_cache()
        self._runner.unload()

    def on_main(self, work: Callable[[], T]) -> T:
        """Runs `work`, which may use this engine, on the first process and returns its result on all of them.

        All processes must call this.
        """
        return self._runner.on_main(work)

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        max_new_tokens: int,
        stop_ids: Sequence[int] = (),
        sampling: SamplingParams | None = None,
    ) -> list[Generation]:
        """One answer for each prompt, in the order of the prompts.

        Raises RequestError before any of them has begun, and LogitsNotFiniteError where the weights give no answer.
        However it ends, no request is in progress afterwards.
        """
        sampling = sampling or SamplingParams()
        requests = [
            Request(tuple(prompt), (seed,), max_new_tokens, tuple(stop_ids), sampling)
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]
        for index, request in enumerate(requests):
            try:
                self.check(request)
            except RequestError as error:
                raise RequestError(f"prompt {index}: {error}") from None
        samples = [self.submit(request)[0] for request in requests]
        try:
            while not all(sample.finished for sample in samples):
                for sample in self.step():
                    if sample.error:
                        raise sample.error
        finally:
            for sample in samples:
                self.cancel(sample)
        return [sample.generation for sample in samples]

    def check(self, request: Request) -> None:
        """Raises RequestError for a request that this engine cannot serve."""
        prompt, config = request.prompt, self.config
        if not prompt:
            raise RequestError("the prompt is empty; it needs at least one token")
        for token in (*request.stop_ids, min(prompt), max(prompt)):
            if not 0 <= token < self.model.vocab_size:
                raise RequestError(f"token {token} is outside the vocabulary of {self.model.vocab_size}")
        if request.max_new_tokens < 1 or not request.seeds:
            raise RequestError(
                f"max_new_tokens {request.max_new_tokens} and {len(request.seeds)} seeds leave nothing to generate"
            )
        if not 0 <= request.min_new_tokens <= request.max_new_tokens:
            raise RequestError(
                f"min_new_tokens is {request.min_new_tokens}, but must be from 0 to max_new_tokens, "
                f"{request.max_new_tokens}"
            )
        if len(prompt) + request.max_new_tokens > config.max_length:
            raise RequestError(
                f"the prompt has {len(prompt)} tokens, which with an answer of {request.max_new_tokens} are more than "
                f"the {config.max_length} that a request may have"
            )
        if len(request.stop_ids) > MAX_STOP_IDS:
            raise RequestError(f"{len(request.stop_ids)} stop ids, but at most {MAX_STOP_IDS} are possible")

    def submit(self, request: Request) -> list[Sample]:
        """Queues a request. Returns a sample for each seed, which grows with calls of `step`.

        Raises RequestError.
        """
        self.check(request)
        samples = [Sample(request, seed) for seed in request.seeds]
        contents = self._page_contents(request.prompt)
        shard = min(
            self._shards, key=lambda s: s.load - len(s.pool.find_prefix(contents)) * self.config.page_size
        )
        shard.queue.append(PendingRequest(request, deque(samples), contents))
        return samples

    def cancel(self, sample: Sample) -> None:
        """Ends a sample and frees its slot and pages at once; does nothing for one that has ended."""
        if sample.finished:
            return
        sample.finished = sample.cancelled = True
        for shard in self._shards:
            for index, slot in enumerate(shard.slots):
                if slot and slot.sample is sample:
                    if not sample.tokens:  # nothing has shown yet whether the values in its pages are finite
                        shard.pool.taint(slot.pages)
                    shard.pool.release(slot.pages)
                    shard.slots[index] = None
            for pending in shard.pending:
                if sample in pending.samples:
                    pending.samples.remove(sample)
            shard.queue = deque(pending for pending in shard.queue if pending.samples)
            if shard.admitted and not shard.admitted.samples:
                shard.drop_admitted()

    def step(self) -> list[Sample]:
        """Prefills requests for free slots, then decodes up to `decode_steps` tokens of each running sample.

        Returns the samples that grew. With `max_prefills_per_step`, what is left to prefill follows in the next steps,
        which decode fewer tokens meanwhile.
        """
        self._clean()
        prefills, decode_steps = 0, self.config.decode_steps
        while prefilling := self._admit():
            if 0 < self.config.max_prefills_per_step <= prefills:
                break
            self._prefill_chunk()
            self._fill_slots()
            prefills += self.running > 0
        grown = self._decode(max(1, decode_steps // 4) if prefilling else decode_steps)
        self._clean()
        return grown

    @property
    def idle(self) -> bool:
        return not self.waiting and not self.running

    @property
    def running(self) -> int:
        """Samples in slots."""
        return sum(slot is not None for shard in self._shards for slot in shard.slots)

    @property
    def waiting(self) -> int:
        """Samples that have not begun."""
        return sum(len(pending.samples) for shard in self._shards for pending in shard.pending)

    @property
    def cache_use(self) -> float:
        """The share of the cache's pages that requests hold."""
        available = sum(shard.pool.available for shard in self._shards)
        return 1 - available / sum(shard.pool.total for shard in self._shards)

    def _page_contents(self, prompt: tuple[int, ...]) -> list[Hashable]:
        """What each page that this prompt fills depends on: its tokens, and the length of the chunk they are in."""
        page_size, length = self.config.page_size, len(prompt) - 1
        return [
            (self.config.chunk_at(start, length)[0], prompt[start : start + page_size])
            for start in range(0, length // page_size * page_size, page_size)
        ]

    def _admit(self) -> bool:
        """Admits the next request of each shard that has room; returns whether there is anything to prefill."""
        self._fill_slots()
        while any(self._admit_to(shard) for shard in self._shards):
            self._fill_slots()
        return any(shard.admitted and not shard.admitted.is_prefilled for shard in self._shards)

    def _admit_to(self, shard: Shard) -> bool:
        """Admits the shard's next request if there are a slot and pages for it; returns whether it did."""
        if shard.admitted or not shard.queue or None not in shard.slots:
            return False
        pending = shard.queue[0]
        request = pending.request
        found = shard.pool.find_prefix(pending.page_contents)
        shard.pool.share(found)
        prompt_pages = self.config.pages_for(len(request.prompt))
        all_pages = self.config.pages_for(len(request.prompt) + request.max_new_tokens)
        if all_pages - len(found) > shard.pool.available:
            shard.pool.release(found)
            return False
        pending.pages = found + shard.pool.allocate(prompt_pages - len(found))
        pending.reserved = shard.pool.allocate(all_pages - prompt_pages)
        pending.computed = len(found) * self.config.page_size
        self.counts.reused += pending.computed
        shard.admitted = shard.queue.popleft()
        return True

    def _prefill_chunk(self) -> None:
        """One prefill call, for all shards whose next chunk has the same size as that of the first one."""
        prefilling = [
            (row, shard.admitted)
            for row, shard in enumerate(self._shards)
            if shard.admitted and not shard.admitted.is_prefilled
        ]
        size = self.config.chunk_at(prefilling[0][1].computed, prefilling[0][1].prefill_length)[0]
        batch = empty_prefill_batch(self.config, len(self._shards), size)
        for row, pending in prefilling:
            own_size, end = self.config.chunk_at(pending.computed, pending.prefill_length)
            if own_size != size:
                continue
            count = end - pending.computed
            batch.tokens[row, :count] = pending.request.prompt[pending.computed : end]
            batch.start[row], batch.num_tokens[row] = pending.computed, count
            batch.page_tables[row, : len(pending.pages)] = pending.pages
            pending.computed = end
            full = end // self.config.page_size
            self._shards[row].pool.cache_prefix(pending.pages[:full], pending.page_contents[:full])
            self.counts.prefilled += count
        self._runner.prefill(batch)

    def _fill_slots(self) -> None:
        """Puts samples of prefilled requests into free slots, as long as there are pages for their answers."""
        slots = [slot for shard in self._shards for slot in shard.slots]
        source, target = np.full((2, len(slots)), NULL_PAGE, np.int32)
        for number, shard in enumerate(self._shards):
            for index, slot in enumerate(shard.slots):
                if slot is None and shard.admitted and shard.admitted.is_prefilled:
                    copy = self._fill_slot(shard, shard.admitted, index)
                    if copy is None:
                        break
                    at = number * len(shard.slots) + index
                    source[at], target[at] = copy
        if (target != NULL_PAGE).any():
            self._runner.copy(source, target)

    def _fill_slot(self, shard: Shard, pending: PendingRequest, index: int) -> tuple[int, int] | None:
        """Puts the request's next sample into this slot.

        Returns which page has to be copied to which (the null page to itself if none), or None if the sample has to
        wait for pages.
        """
        request = pending.request
        full, in_last_page = divmod(pending.prefill_length, self.config.page_size)
        shared, last_page = pending.pages[:full], pending.pages[full]  # decoding begins in last_page
        own_pages = self.config.pages_for(len(request.prompt) + request.max_new_tokens) - full
        copy = (NULL_PAGE, NULL_PAGE)
        if len(pending.samples) == 1:  # the last sample takes over the prompt's own pages
            missing = own_pages - 1 - len(pending.reserved)
            if missing > shard.pool.available:
                return None
            pages = [*pending.pages, *pending.reserved, *shard.pool.allocate(missing)]
            sample = pending.samples.popleft()
            shard.admitted = None
        else:
            missing = own_pages - len(pending.reserved)
            if missing > shard.pool.available:
                return None
            own = [*pending.reserved, *shard.pool.allocate(missing)]
            shard.pool.share(shared)
            pages = [*shared, *own]
            copy = (last_page, own[0]) if in_last_page else copy
            sample = pending.samples.popleft()
            pending.reserved = []
        shard.slots[index] = RunningSample(sample, pages)
        return copy

    def _decode(self, max_steps: int) -> list[Sample]:
        """One decode call. Returns the samples that grew."""
        slots = [slot for shard in self._shards for slot in shard.slots]
        if not any(slots):
            return []
        output = self._runner.decode(self._decode_batch(slots, max_steps))
        grown = []
        for number, shard in enumerate(self._shards):
            for index, slot in enumerate(shard.slots):
                if slot is None:
                    continue
                at = number * len(shard.slots) + index
                count = output.counts[at]
                self.counts.decoded += slot.sample.extend(
                    output.tokens[at, :count].tolist(), output.logprobs[at, :count].tolist()
                )
                grown.append(slot.sample)
                if slot.sample.error:
                    shard.pool.taint(slot.pages)
                if slot.sample.finished:
                    shard.pool.release(slot.pages)
                    shard.slots[index] = None
        return grown

    def _clean(self) -> None:
        """Overwrites pages that may hold NaN: masked values have weight 0 for the next user, but 0 x NaN is NaN."""
        while any(shard.pool.tainted for shard in self._shards):
            source, target = np.full(
                (2, sum(len(shard.slots) for shard in self._shards)), NULL_PAGE, np.int32
            )
            start = 0
            for shard in self._shards:
                pages = shard.pool.clean(len(shard.slots))
                target[start : start + len(pages)] = pages
                start += len(shard.slots)
            self._runner.copy(source, target)

    def _decode_batch(self, slots: Sequence[RunningSample | None], max_steps: int) -> DecodeBatch[np.ndarray]:
        """The running samples as arrays."""
        batch = empty_decode_batch(self.config, len(slots))
        batch.max_steps[...] = max_steps
        batch.exit_on_finish[...] = self.waiting > 0
        for i, slot in enumerate(slots):
            if slot is None:
                continue
            sample, request = slot.sample, slot.sample.request
            batch.page_tables[i, : len(slot.pages)] = slot.pages
            batch.token[i], batch.length[i] = sample.last_token, sample.length - 1
            batch.remaining[i], batch.seed[i] = sample.remaining, sample.seed
            batch.min_tokens[i] = max(0, request.min_new_tokens - len(sample.tokens))
            batch.stop_ids[i, : len(request.stop_ids)] = request.stop_ids
            for values, name in zip(batch.sampling, SamplingMetadata._fields, strict=True):
                values[i] = getattr(request.sampling, name)
        return batch

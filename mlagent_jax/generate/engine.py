"""Continuous batching: requests come and go, each decoded from a slot of its own while others are read or wait.

An answer is a function of the weights, the prompt, its seed and its sampling alone, to the bit: of the batch it
shares, of the order of arrivals and of what it finds read already it depends in nothing. For that, prompts are read in
chunks that only their length decides, and tokens of the cache are shared only where both would have read them in a
chunk of the same length. What was decoded is not shared: read in the next turn's prompt, it would be rounded otherwise.
A prompt is read but for its last token, with which decoding begins.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jax.sharding import Mesh

from mlagent_jax.generate.config import EngineConfig
from mlagent_jax.generate.kv_cache import TRASH
from mlagent_jax.generate.model_runner import Runner
from mlagent_jax.generate.page_pool import PagePool
from mlagent_jax.generate.programs import MAX_STOP_IDS, Slots, empty_chunk, empty_slots, shards_of
from mlagent_jax.generate.request import Generation, Request, RequestError, Sample
from mlagent_jax.generate.sampling import Knobs, SamplingParams
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.qwen2 import Params


@dataclass
class Counts:
    """Tokens since the engine was made: read, found read already, and decoded."""

    prefilled: int = 0
    reused: int = 0
    decoded: int = 0


@dataclass
class _Job:
    """A request with its prompt's pages, from its turn until its last sample has begun.

    waiting: samples that have not begun. done: tokens of the prompt that are in the cache. spare: pages for the first
    sample's answer, set aside so that none that has been read waits for ever.
    """

    request: Request
    waiting: deque[Sample]
    contents: list[Hashable]
    pages: list[int] = field(default_factory=list)
    spare: list[int] = field(default_factory=list)
    done: int = 0

    @property
    def to_read(self) -> int:
        """Tokens of the prompt: all but the last, which is decoded from."""
        return len(self.request.prompt) - 1

    @property
    def is_read(self) -> bool:
        return self.done == self.to_read


@dataclass
class _Running:
    sample: Sample
    pages: list[int]


class _Shard:
    """Slots and pages of one group of devices, and who waits for them, in the order of arrival."""

    def __init__(self, slots: int, pages: int):
        self.pool = PagePool(pages)
        self.queue: deque[_Job] = deque()
        self.job: _Job | None = None
        self.running: list[_Running | None] = [None] * slots

    @property
    def load(self) -> int:
        """Tokens still to be worked through."""
        jobs = [*self.queue] + ([self.job] if self.job else [])
        waiting = sum(
            len(job.request.prompt) - job.done + sum(s.remaining for s in job.waiting) for job in jobs
        )
        return waiting + sum(slot.sample.remaining for slot in self.running if slot)


class Engine:
    """Generates with `model` over `mesh`. Not thread-safe. `load` weights before anything else.

    Where the mesh spans several processes, the first does all that is here but `load` and `leading`.
    """

    def __init__(self, model: Qwen2Config, config: EngineConfig, mesh: Mesh):
        self.model, self.config, self.counts = model, config, Counts()
        self._runner = Runner(model, config, mesh)
        self.leading = self._runner.leading
        shards = shards_of(mesh)
        self._shards = [_Shard(config.slots_on(shards), config.pages_on(shards)) for _ in range(shards)]

    def load(self, params: Params) -> None:
        """New weights, with the model's adapters if it has any, laid out as in training; all processes must call it.

        Requests under way must have ended.
        """
        if not self.idle:
            raise RuntimeError("weights cannot change while requests are under way")
        for shard in self._shards:
            shard.pool.forget()
        self._runner.load(params)

    def unload(self) -> None:
        """Leaves the devices' memory to others until the next `load`; all processes must call it."""
        for shard in self._shards:
            shard.pool.forget()
        self._runner.unload()

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        max_new_tokens: int,
        stop_ids: Sequence[int] = (),
        sampling: SamplingParams | None = None,
    ) -> list[Generation]:
        """One answer for each prompt, in the order given.

        Raises RequestError before any of them has begun, LogitsNotFiniteError where the weights give no answer; nothing
        is under way afterwards, whatever it was that ended this.
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
                self._raise_first_error(self.step())
        finally:
            for sample in samples:
                self.cancel(sample)
        return [sample.generation for sample in samples]

    def _raise_first_error(self, samples: Sequence[Sample]) -> None:
        for sample in samples:
            if sample.error:
                raise sample.error

    def check(self, request: Request) -> None:
        """Raises RequestError for what this engine can never serve."""
        prompt, config = request.prompt, self.config
        if not prompt:
            raise RequestError("the prompt is empty; it needs at least one token")
        for token in (*request.stop_ids, min(prompt), max(prompt)):
            if not 0 <= token < self.model.vocab_size:
                raise RequestError(f"token {token} is outside the vocabulary of {self.model.vocab_size}")
        if request.max_new_tokens < 1 or not request.seeds:
            raise RequestError(
                f"max_new_tokens {request.max_new_tokens} and {len(request.seeds)} seeds leave nothing to do"
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
        """Puts a request in the queue; its samples, one for each seed, grow as `step` is called."""
        self.check(request)
        samples = [Sample(request, seed) for seed in request.seeds]
        contents = self._contents(request.prompt)
        shard = min(self._shards, key=lambda s: s.load - len(s.pool.find(contents)) * self.config.page)
        shard.queue.append(_Job(request, deque(samples), contents))
        return samples

    def cancel(self, sample: Sample) -> None:
        """Frees at once what it held; nothing where it has ended."""
        if sample.finished:
            return
        sample.finished = sample.cancelled = True
        for shard in self._shards:
            for index, slot in enumerate(shard.running):
                if slot and slot.sample is sample:
                    if not sample.tokens:  # nothing has told yet whether what it read is finite
                        shard.pool.taint(slot.pages)
                    shard.pool.release(slot.pages)
                    shard.running[index] = None
            for job in [*shard.queue, *([shard.job] if shard.job else [])]:
                if sample in job.waiting:
                    job.waiting.remove(sample)
            shard.queue = deque(job for job in shard.queue if job.waiting)
            if shard.job and not shard.job.waiting:
                self._end_job(shard)

    def step(self) -> list[Sample]:
        """Reads what can begin, then decodes up to `steps` tokens of each running sample; those that grew.

        Where `reads` bounds the reading, the rest of it follows in the next steps, which are shorter meanwhile.
        """
        self._clean()
        reads, steps = 0, self.config.steps
        while reading := self._admit():
            if 0 < self.config.reads <= reads:
                break
            self._read_chunk()
            self._begin()
            reads += self.running > 0
        grown = self._decode(max(1, steps // 4) if reading else steps)
        self._clean()
        return grown

    @property
    def idle(self) -> bool:
        return not self.waiting and not self.running

    @property
    def running(self) -> int:
        """Samples in slots."""
        return sum(slot is not None for shard in self._shards for slot in shard.running)

    @property
    def waiting(self) -> int:
        """Samples that have not begun."""
        jobs = [job for shard in self._shards for job in (*shard.queue, shard.job) if job]
        return sum(len(job.waiting) for job in jobs)

    @property
    def cache_use(self) -> float:
        """The share of the cache's pages that running requests hold."""
        available = sum(shard.pool.available for shard in self._shards)
        return 1 - available / sum(shard.pool.total for shard in self._shards)

    def _contents(self, prompt: tuple[int, ...]) -> list[Hashable]:
        """What is in each page of a prompt that reading it fills."""
        page, to_read = self.config.page, len(prompt) - 1
        return [
            (self.config.chunk_at(start, to_read)[0], prompt[start : start + page])
            for start in range(0, to_read // page * page, page)
        ]

    def _admit(self) -> bool:
        """Gives the shards' next requests their turns, where there is room; whether there is anything to read."""
        self._begin()
        while any(self._admit_to(shard) for shard in self._shards):
            self._begin()
        return any(shard.job and not shard.job.is_read for shard in self._shards)

    def _admit_to(self, shard: _Shard) -> bool:
        """Whether the shard's next request has got its turn."""
        if shard.job or not shard.queue or None not in shard.running:
            return False
        job = shard.queue[0]
        request, page = job.request, self.config.page
        found = shard.pool.find(job.contents)
        shard.pool.share(found)
        prompt = self.config.pages_of(len(request.prompt))
        whole = self.config.pages_of(len(request.prompt) + request.max_new_tokens)
        if whole - len(found) > shard.pool.available:
            shard.pool.release(found)
            return False
        job.pages = found + shard.pool.take(prompt - len(found))
        job.spare = shard.pool.take(whole - prompt)
        job.done = len(found) * page
        self.counts.reused += job.done
        shard.job = shard.queue.popleft()
        return True

    def _read_chunk(self) -> None:
        """One chunk of the same size for every shard that has such a one."""
        reading = [(i, s.job) for i, s in enumerate(self._shards) if s.job and not s.job.is_read]
        size = self.config.chunk_at(reading[0][1].done, reading[0][1].to_read)[0]
        chunk = empty_chunk(self.config, len(self._shards), size)
        for row, job in reading:
            own, end = self.config.chunk_at(job.done, job.to_read)
            if own != size:
                continue
            count = end - job.done
            chunk.tokens[row, :count] = job.request.prompt[job.done : end]
            chunk.start[row], chunk.count[row] = job.done, count
            chunk.tables[row, : len(job.pages)] = job.pages
            job.done = end
            complete = end // self.config.page
            self._shards[row].pool.keep(job.pages[:complete], job.contents[:complete])
            self.counts.prefilled += count
        self._runner.prefill(chunk)

    def _begin(self) -> None:
        """Puts samples whose prompt has been read into free slots, as long as there are pages for their answers."""
        slots = [slot for shard in self._shards for slot in shard.running]
        source, target = np.full((2, len(slots)), TRASH, np.int32)
        for number, shard in enumerate(self._shards):
            for index, slot in enumerate(shard.running):
                if slot is None and shard.job and shard.job.is_read:
                    copied = self._begin_one(shard, index)
                    if copied is None:
                        break
                    at = number * len(shard.running) + index
                    source[at], target[at] = copied
        if (target != TRASH).any():
            self._runner.copy(source, target)

    def _begin_one(self, shard: _Shard, index: int) -> tuple[int, int] | None:
        """The job's next sample into this slot; which page to copy where, or None where it has to wait."""
        job = shard.job
        assert job is not None
        request = job.request
        complete, begun = divmod(job.to_read, self.config.page)
        shared, partial = job.pages[:complete], job.pages[complete]  # where the last token will be
        fresh = self.config.pages_of(len(request.prompt) + request.max_new_tokens) - complete
        copied = (TRASH, TRASH)
        if len(job.waiting) == 1:  # the last one takes the prompt's own pages
            missing = fresh - 1 - len(job.spare)
            if missing > shard.pool.available:
                return None
            pages = [*job.pages, *job.spare, *shard.pool.take(missing)]
            sample = job.waiting.popleft()
            shard.job = None
        else:
            missing = fresh - len(job.spare)
            if missing > shard.pool.available:
                return None
            own = [*job.spare, *shard.pool.take(missing)]
            shard.pool.share(shared)
            pages = [*shared, *own]
            copied = (partial, own[0]) if begun else copied
            sample = job.waiting.popleft()
            job.spare = []
        shard.running[index] = _Running(sample, pages)
        return copied

    def _end_job(self, shard: _Shard) -> None:
        assert shard.job is not None
        shard.pool.taint(shard.job.pages)
        shard.pool.release([*shard.job.pages, *shard.job.spare])
        shard.job = None

    def _decode(self, steps: int) -> list[Sample]:
        slots = [slot for shard in self._shards for slot in shard.running]
        if not any(slots):
            return []
        out = self._runner.decode(self._slots(slots)._replace(limit=np.int32(steps)))
        grown = []
        for number, shard in enumerate(self._shards):
            for index, slot in enumerate(shard.running):
                if slot is None:
                    continue
                at = number * len(shard.running) + index
                count = out.counts[at]
                self.counts.decoded += slot.sample.extend(
                    out.tokens[at, :count].tolist(), out.logprobs[at, :count].tolist()
                )
                grown.append(slot.sample)
                if slot.sample.error:
                    shard.pool.taint(slot.pages)
                if slot.sample.finished:
                    shard.pool.release(slot.pages)
                    shard.running[index] = None
        return grown

    def _clean(self) -> None:
        """Overwrites pages that may hold NaN: hidden values weigh 0 for the next user of these, but 0 x NaN is NaN."""
        while any(shard.pool.tainted for shard in self._shards):
            source, target = np.full((2, sum(len(shard.running) for shard in self._shards)), TRASH, np.int32)
            start = 0
            for shard in self._shards:
                pages = shard.pool.clean(len(shard.running))
                target[start : start + len(pages)] = pages
                start += len(shard.running)
            self._runner.copy(source, target)

    def _slots(self, slots: Sequence[_Running | None]) -> Slots:
        """The running samples as arrays; an empty slot has nothing remaining."""
        given = empty_slots(self.config, len(slots))._replace(leave=np.bool_(self.waiting > 0))
        for i, slot in enumerate(slots):
            if slot is None:
                continue
            sample, request = slot.sample, slot.sample.request
            given.tables[i, : len(slot.pages)] = slot.pages
            given.token[i], given.length[i] = sample.last, sample.length - 1
            given.remaining[i], given.seed[i] = sample.remaining, sample.seed
            given.least[i] = max(0, request.min_new_tokens - len(sample.tokens))
            given.stop_ids[i, : len(request.stop_ids)] = request.stop_ids
            for values, name in zip(given.knobs, Knobs._fields, strict=True):
                values[i] = getattr(request.sampling, name)
        return given

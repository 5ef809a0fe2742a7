"""The scheduling state of one shard: its slots, its pages, and the requests that wait for them."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field

from mlagent_jax.generate.page_pool import PagePool
from mlagent_jax.generate.request import Request, Sample


@dataclass
class PendingRequest:
    """A request with samples that have not begun.

    samples: those that have not begun. page_contents: what identifies each full page of the prompt. pages: of the
    prompt, once the request has been admitted. reserved: pages for the first sample's answer, so that a prefilled
    request never waits for pages. computed: tokens of the prompt that are in the cache.
    """

    request: Request
    samples: deque[Sample]
    page_contents: list[Hashable]
    pages: list[int] = field(default_factory=list)
    reserved: list[int] = field(default_factory=list)
    computed: int = 0

    @property
    def prefill_length(self) -> int:
        """Tokens of the prompt except the last one, with which decoding begins."""
        return len(self.request.prompt) - 1

    @property
    def is_prefilled(self) -> bool:
        return self.computed == self.prefill_length


@dataclass
class RunningSample:
    """A sample that is being decoded, and its pages."""

    sample: Sample
    pages: list[int]


class Shard:
    """Slots and pages of one group of devices.

    queue: requests that have not been admitted, in order of arrival. admitted: the request that has pages and is being
    prefilled or put into slots.
    """

    def __init__(self, slots: int, pages: int):
        self.pool = PagePool(pages)
        self.queue: deque[PendingRequest] = deque()
        self.admitted: PendingRequest | None = None
        self.slots: list[RunningSample | None] = [None] * slots

    @property
    def pending(self) -> Iterator[PendingRequest]:
        """The queue, then the admitted request."""
        yield from self.queue
        if self.admitted:
            yield self.admitted

    @property
    def load(self) -> int:
        """Tokens that are still to be prefilled or decoded."""
        pending = sum(
            len(each.request.prompt) - each.computed + sum(sample.remaining for sample in each.samples)
            for each in self.pending
        )
        return pending + sum(slot.sample.remaining for slot in self.slots if slot)

    def drop_admitted(self) -> None:
        """Frees the admitted request, whose samples have all been cancelled."""
        assert self.admitted is not None
        # Nothing has shown yet whether the values in its pages are finite.
        self.pool.taint(self.admitted.pages)
        self.pool.release([*self.admitted.pages, *self.admitted.reserved])
        self.admitted = None

"""Assigns containers to jobs, and keeps idle ones ready.

A container is created for a task: its data and its limits. It serves one job after another, of any episode. In
between, its worker ends every process, empties every folder and advances every counter to a fixed value (see
`sandbox_worker.counters`), so that nothing passes from one job to the next. If an engine cannot hide what earlier jobs
did, or the user asks for it, a container serves the jobs of one lease only and is then destroyed; a job without a
lease gets a container to itself. A container that is lost or evicted is replaced by a new one without effect on jobs.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import queue
import random
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from absl import logging

from mlagent_jax.sandbox.containers.container import Container
from mlagent_jax.sandbox.containers.engine import Engine, EngineError
from mlagent_jax.sandbox.containers.policy import ContainerSpec
from mlagent_jax.sandbox.containers.settings import DockerSettings
from mlagent_jax.sandbox.interface import Job
from mlagent_jax.sandbox.pool import GRACE_SECONDS, ClosedError, WorkerError

_Kind = tuple[Engine, ContainerSpec]
_RETRY_SECONDS = 0.25
# A container's successor starts when this many jobs or seconds are left.
_SUCCESSOR_JOBS = 4
_SUCCESSOR_SECONDS = 60.0


@dataclass(frozen=True)
class Slot:
    """Permission to run one job on an engine, with one of its GPUs if there are any."""

    engine: Engine
    gpu: str


class ContainerPool:
    """Runs as many jobs at once as there are slots. Thread-safe. `name`: prefix of the names of its containers."""

    def __init__(
        self, slots: Sequence[Slot], settings: DockerSettings, preload: tuple[str, ...], max_idle: int
    ) -> None:
        """`max_idle`: how many containers may be idle at the same time."""
        self._engines = {slot.engine for slot in slots}
        self._settings = settings
        self._preload = preload
        self._slots: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        for slot in slots:
            self._slots.put(slot)
        self._max_idle = max(max_idle, settings.spares)
        self._slot_count = len(slots)
        self._max_leased = 2 * len(slots)
        self._background = ThreadPoolExecutor(max(2, len(slots)), thread_name_prefix="container")
        self.name = f"mlagent-{secrets.token_hex(4)}"
        self._numbers = itertools.count(random.randrange(1 << 16))
        self._lock = threading.Lock()  # guards everything below
        self._closed = False
        self._alive: set[Container] = set()
        self._started = self._jobs = 0
        self._exposed: dict[Engine, tuple[str, ...]] = {}  # what an engine's containers show of earlier jobs
        # The least recently used kind comes first, and so does the least recently used container of a kind.
        self._idle: collections.OrderedDict[_Kind, list[Container]] = collections.OrderedDict()
        self._starting: collections.Counter[_Kind] = collections.Counter()
        self._leased: collections.OrderedDict[tuple[str, _Kind], Container] = collections.OrderedDict()

    @contextlib.contextmanager
    def borrow(self, job: Job, data: str) -> Iterator[Container]:
        """Lends a container for `job`, whose data is at `data` on the engine's host. Raises WorkerError."""
        slot = self._take_slot()
        container = None
        try:
            kind = (slot.engine, ContainerSpec.from_limits(job.limits, data, slot.gpu))
            container = self._take(kind, job)
            with self._lock:
                self._jobs += 1
            yield container
            if self._is_shared(kind):
                self._return(kind, container)
                container = None
            elif job.lease:
                self._keep_for_lease(job.lease, kind, container)
                container = None
        finally:
            self._slots.put(slot)
            if container is not None:
                self._discard(container)

    def release(self, lease: str) -> None:
        """Ends the containers that are kept for `lease`."""
        with self._lock:
            done = [self._leased.pop(key) for key in list(self._leased) if key[0] == lease]
        for container in done:
            self._discard(container)

    def close(self) -> None:
        """Ends every container, even a busy one."""
        with self._lock:
            if self._started and not self._closed:
                logging.info("%d containers have served %d jobs.", self._started, self._jobs)
            self._closed = True
            alive = list(self._alive)
            self._idle.clear()
            self._leased.clear()
        list(self._background.map(self._remove, alive))
        self._background.shutdown(wait=True)

    @property
    def ready(self) -> set[str]:
        """The names of the idle containers."""
        with self._lock:
            idle = {container.name for containers in self._idle.values() for container in containers}
            return idle | {container.name for container in self._leased.values()}

    @property
    def exposed(self) -> list[str]:
        """What the containers started so far show a job of earlier ones; see `sandbox_worker.exposure`."""
        with self._lock:
            return sorted({path for paths in self._exposed.values() for path in paths})

    @property
    def started(self) -> int:
        """How many containers this pool has started so far."""
        with self._lock:
            return self._started

    def _take_slot(self) -> Slot:
        """The next free slot whose engine answers, or is due for another try. Raises WorkerError."""
        deadline = time.monotonic() + self._settings.patience_seconds
        while True:
            slot = self._slots.get()
            if self._closed:
                self._slots.put(slot)
                raise ClosedError("the sandbox is closed")
            if slot.engine.breaker.allows_try():
                return slot
            self._slots.put(slot)
            if time.monotonic() > deadline:
                raise WorkerError(f"no engine has answered for {self._settings.patience_seconds:g} s")
            time.sleep(_RETRY_SECONDS)

    def _is_shared(self, kind: _Kind) -> bool:
        """Whether a container of this kind may serve several leases, one after another."""
        return self._settings.container_per == "task" and kind[0] not in self._exposed

    def _spares_wanted(self, kind: _Kind) -> int:
        """How many unused containers to keep ready, beside those in use."""
        return self._settings.spares or (0 if self._is_shared(kind) else self._slot_count)

    def _take(self, kind: _Kind, job: Job) -> Container:
        """The lease's own container, else an idle one, else a new one."""
        seconds = job.limits.wall_seconds
        try:
            while (container := self._pop(kind, job.lease)) is not None:
                if container.can_serve(seconds):
                    return container
                self._discard(container)
            return self._start_with_retries(kind, seconds)
        finally:
            self._refill(kind, seconds, self._spares_wanted(kind))

    def _pop(self, kind: _Kind, lease: str) -> Container | None:
        with self._lock:
            if lease and (lease, kind) in self._leased:
                return self._leased.pop((lease, kind))
            if not self._idle.get(kind):
                return None
            self._idle.move_to_end(kind)
            return self._idle[kind].pop()

    def _return(self, kind: _Kind, container: Container) -> None:
        """Keeps the container for the next job, or discards it after its last one. Starts a successor before that."""
        jobs_left = self._settings.most_jobs - container.jobs
        seconds_left = container.seconds_left - container.job_seconds - GRACE_SECONDS
        is_near_end = jobs_left <= _SUCCESSOR_JOBS or seconds_left <= _SUCCESSOR_SECONDS
        if is_near_end and not container.has_successor:
            container.has_successor = True
            self._refill(kind, container.job_seconds, 1)
        if jobs_left > 0:
            self._add_idle(kind, container)
        else:
            self._discard(container)

    def _add_idle(self, kind: _Kind, container: Container) -> None:
        """Evicts containers of the least recently used kind if too many are idle."""
        with self._lock:
            if self._closed:
                return  # `close` ends it
            self._idle.setdefault(kind, []).append(container)
            self._idle.move_to_end(kind)
            evicted = []
            while sum(map(len, self._idle.values())) > self._max_idle:
                oldest = next(kind for kind, containers in self._idle.items() if containers)
                evicted.append(self._idle[oldest].pop(0))
        for one in evicted:
            self._discard(one)

    def _start_with_retries(self, kind: _Kind, seconds: float) -> Container:
        """A restart of the engine costs time, but none of the job's attempts. Raises WorkerError."""
        deadline = time.monotonic() + self._settings.patience_seconds
        while True:
            try:
                return self._start(kind, seconds)
            except ClosedError:
                raise
            except WorkerError as error:
                is_final = isinstance(error, EngineError) and error.is_refusal
                if is_final or self._another_engine_answers(kind[0]) or time.monotonic() > deadline:
                    raise
                logging.warning("a container did not start; another one is tried: %s", error)
            time.sleep(_RETRY_SECONDS * (1 + random.random()))

    def _another_engine_answers(self, engine: Engine) -> bool:
        """Whether another attempt of the job is likely to get a better engine than this one."""
        return engine.breaker.is_open and any(not other.breaker.is_open for other in self._engines)

    def _start(self, kind: _Kind, seconds: float) -> Container:
        engine, spec = kind
        life = max(self._settings.life_seconds, 2 * seconds + 4 * GRACE_SECONDS)
        number = next(self._numbers)
        container = Container(engine, f"{self.name}-{number}", spec, seconds, life)
        with self._lock:
            if self._closed:
                raise ClosedError("the sandbox is closed")
            self._alive.add(container)
            self._started += 1
        try:
            container.start(self._settings, number, self._preload)
        except BaseException:
            self._discard(container)
            raise
        if container.exposed and engine not in self._exposed:
            self._exposed[engine] = container.exposed
            if self._settings.container_per == "task":
                logging.warning(
                    "Containers of %s serve one episode each, which takes longer: they would show a job what earlier "
                    "jobs did (%s).",
                    engine.label,
                    ", ".join(container.exposed[:4]),
                )
        return container

    def _refill(self, kind: _Kind, seconds: float, target: int) -> None:
        """Starts containers in the background until this many are idle or starting."""
        with self._lock:
            while not self._closed and len(self._idle.get(kind, ())) + self._starting[kind] < target:
                self._starting[kind] += 1
                self._background.submit(self._start_spare, kind, seconds)

    def _start_spare(self, kind: _Kind, seconds: float) -> None:
        container = None
        try:
            container = self._start(kind, seconds)
        except ClosedError:
            pass
        except WorkerError as error:
            if not self._closed:  # closing makes it fail
                logging.log_every_n_seconds(logging.WARNING, "no spare container: %s", 10, error)
        finally:
            with self._lock:
                self._starting[kind] -= 1
        if container is not None:
            self._add_idle(kind, container)

    def _keep_for_lease(self, lease: str, kind: _Kind, container: Container) -> None:
        with self._lock:
            if self._closed:
                return
            # Another job of the same lease may have run at the same time.
            before = self._leased.pop((lease, kind), None)
            self._leased[lease, kind] = container
            oldest = self._leased.popitem(last=False)[1] if len(self._leased) > self._max_leased else None
        for evicted in (before, oldest):
            if evicted is not None:
                self._discard(evicted)

    def _discard(self, container: Container) -> None:
        with self._lock:
            if not self._closed:
                self._background.submit(self._remove, container)
                return
        self._remove(container)

    def _remove(self, container: Container) -> None:
        container.close()
        with self._lock:
            self._alive.discard(container)

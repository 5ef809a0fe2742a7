"""Which container serves which job, and which wait for one.

A container is made for a task: its data and its limits. It serves one job after the other, of whatever episode: its
worker ends every process in between, empties every folder and moves every counter on by the same (see
`sandbox_worker.counters`), so that nothing passes from one to the next. Where an engine cannot hide what earlier jobs
did, or the user wants it so, a container serves the jobs of one lease, and is then destroyed; a job without a lease
has one to itself. A container that is lost or has to make room is replaced by a fresh one, and nobody notices.
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
from mlagent_jax.sandbox.containers.policy import Shape
from mlagent_jax.sandbox.containers.settings import DockerSettings
from mlagent_jax.sandbox.interface import Job
from mlagent_jax.sandbox.pool import GRACE_SECONDS, ClosedError, WorkerError

_Kind = tuple[Engine, Shape]
_RETRY_SECONDS = 0.25
# So many jobs, or seconds, before a container's end its successor starts.
_LAST_JOBS = 4
_LAST_SECONDS = 60.0


@dataclass(frozen=True)
class Slot:
    """The right to run one job on one engine, with one of its GPUs if it has any."""

    engine: Engine
    gpu: str


class ContainerPool:
    """Runs as many jobs at once as there are slots. Thread-safe. `name`: begins the names of its containers."""

    def __init__(
        self, slots: Sequence[Slot], settings: DockerSettings, preload: tuple[str, ...], most_kept: int
    ) -> None:
        """most_kept: how many containers may wait for a job."""
        self._engines = {slot.engine for slot in slots}
        self._settings = settings
        self._preload = preload
        self._slots: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        for slot in slots:
            self._slots.put(slot)
        self._most_kept = max(most_kept, settings.spares)
        self._slot_count = len(slots)
        self._most_leased = 2 * len(slots)
        self._background = ThreadPoolExecutor(max(2, len(slots)), thread_name_prefix="container")
        self.name = f"mlagent-{secrets.token_hex(4)}"
        self._numbers = itertools.count(random.randrange(1 << 16))
        self._lock = threading.Lock()  # of all that follows
        self._closed = False
        self._alive: set[Container] = set()
        self._started = self._jobs = 0
        self._exposed: dict[Engine, tuple[str, ...]] = {}  # what its containers show of earlier jobs
        # The least recently used come first, here and among those of a kind.
        self._idle: collections.OrderedDict[_Kind, list[Container]] = collections.OrderedDict()
        self._starting: collections.Counter[_Kind] = collections.Counter()
        self._leased: collections.OrderedDict[tuple[str, _Kind], Container] = collections.OrderedDict()

    @contextlib.contextmanager
    def borrow(self, job: Job, data: str) -> Iterator[Container]:
        """A container for `job`, whose data lies at `data` on the engine's host. Raises WorkerError."""
        slot = self._take_slot()
        container = None
        try:
            kind = (slot.engine, Shape.of(job.limits, data, slot.gpu))
            container = self._take(kind, job)
            with self._lock:
                self._jobs += 1
            yield container
            if self._serves_all(kind):
                self._give_back(kind, container)
                container = None
            elif job.lease:
                self._keep(job.lease, kind, container)
                container = None
        finally:
            self._slots.put(slot)
            if container is not None:
                self._discard(container)

    def release(self, lease: str) -> None:
        """Ends what is kept for `lease`."""
        with self._lock:
            done = [self._leased.pop(key) for key in list(self._leased) if key[0] == lease]
        for container in done:
            self._discard(container)

    def close(self) -> None:
        """Ends every container, also those that work."""
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
        """The names of the containers that wait for a job."""
        with self._lock:
            idle = {container.name for waiting in self._idle.values() for container in waiting}
            return idle | {container.name for container in self._leased.values()}

    @property
    def exposed(self) -> list[str]:
        """What the containers that were started so far would show a job of those before it."""
        with self._lock:
            return sorted({thing for things in self._exposed.values() for thing in things})

    @property
    def started(self) -> int:
        """How many containers this pool has started so far."""
        with self._lock:
            return self._started

    def _take_slot(self) -> Slot:
        """The next free slot whose engine answers, or is worth a try. Raises WorkerError."""
        give_up = time.monotonic() + self._settings.patience_seconds
        while True:
            slot = self._slots.get()
            if self._closed:
                self._slots.put(slot)
                raise ClosedError("the sandbox is closed")
            if slot.engine.breaker.allows():
                return slot
            self._slots.put(slot)
            if time.monotonic() > give_up:
                raise WorkerError(f"no engine has answered for {self._settings.patience_seconds:g} s")
            time.sleep(_RETRY_SECONDS)

    def _serves_all(self, kind: _Kind) -> bool:
        """Whether a container of this kind may serve one lease after the other."""
        return self._settings.container_per == "task" and kind[0] not in self._exposed

    def _spares_wanted(self, kind: _Kind) -> int:
        """How many fresh containers are to wait, beside those that are in use."""
        return self._settings.spares or (0 if self._serves_all(kind) else self._slot_count)

    def _take(self, kind: _Kind, job: Job) -> Container:
        """The lease's own container, else one that waits, else a new one."""
        seconds = job.limits.wall_seconds
        try:
            while (container := self._pop(kind, job.lease)) is not None:
                if container.can_serve(seconds):
                    return container
                self._discard(container)
            return self._start_patiently(kind, seconds)
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

    def _give_back(self, kind: _Kind, container: Container) -> None:
        """Keeps it for the next job, or replaces it when it has served long enough; in time, a fresh one starts."""
        jobs_left = self._settings.most_jobs - container.jobs
        seconds_left = container.seconds_left - container.job_seconds - GRACE_SECONDS
        if (jobs_left <= _LAST_JOBS or seconds_left <= _LAST_SECONDS) and not container.is_replaced:
            container.is_replaced = True
            self._refill(kind, container.job_seconds, 1)
        if jobs_left > 0:
            self._add_idle(kind, container)
        else:
            self._discard(container)

    def _add_idle(self, kind: _Kind, container: Container) -> None:
        """One too many makes room: of the kind that was not in use for longest."""
        with self._lock:
            if self._closed:
                return  # `close` ends it
            self._idle.setdefault(kind, []).append(container)
            self._idle.move_to_end(kind)
            superfluous = []
            while sum(map(len, self._idle.values())) > self._most_kept:
                oldest = next(kind for kind, waiting in self._idle.items() if waiting)
                superfluous.append(self._idle[oldest].pop(0))
        for one in superfluous:
            self._discard(one)

    def _start_patiently(self, kind: _Kind, seconds: float) -> Container:
        """An engine that is being restarted costs time, and no attempt of the job's. Raises WorkerError."""
        give_up = time.monotonic() + self._settings.patience_seconds
        while True:
            try:
                return self._start(kind, seconds)
            except ClosedError:
                raise
            except WorkerError as error:
                is_final = isinstance(error, EngineError) and error.is_refusal
                if is_final or self._another_answers(kind[0]) or time.monotonic() > give_up:
                    raise
                logging.warning("a container did not start, another is tried: %s", error)
            time.sleep(_RETRY_SECONDS * (1 + random.random()))

    def _another_answers(self, engine: Engine) -> bool:
        """Whether a further attempt may well find a better engine than this one."""
        return engine.breaker.is_open and any(not other.breaker.is_open for other in self._engines)

    def _start(self, kind: _Kind, seconds: float) -> Container:
        engine, shape = kind
        life = max(self._settings.life_seconds, 2 * seconds + 4 * GRACE_SECONDS)
        number = next(self._numbers)
        container = Container(engine, f"{self.name}-{number}", shape, seconds, life)
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
                    "Containers of %s serve one episode each, which takes longer: they would show a job what those "
                    "before it did (%s).",
                    engine.label,
                    ", ".join(container.exposed[:4]),
                )
        return container

    def _refill(self, kind: _Kind, seconds: float, wanted: int) -> None:
        """Starts containers in the background until so many wait, or are on their way."""
        with self._lock:
            while not self._closed and len(self._idle.get(kind, ())) + self._starting[kind] < wanted:
                self._starting[kind] += 1
                self._background.submit(self._make_spare, kind, seconds)

    def _make_spare(self, kind: _Kind, seconds: float) -> None:
        container = None
        try:
            container = self._start(kind, seconds)
        except ClosedError:
            pass
        except WorkerError as error:
            if not self._closed:  # whose end this would be
                logging.log_every_n_seconds(logging.WARNING, "no spare container: %s", 10, error)
        finally:
            with self._lock:
                self._starting[kind] -= 1
        if container is not None:
            self._add_idle(kind, container)

    def _keep(self, lease: str, kind: _Kind, container: Container) -> None:
        with self._lock:
            if self._closed:
                return
            before = self._leased.pop((lease, kind), None)  # of a job of the same lease at the same time
            self._leased[lease, kind] = container
            oldest = self._leased.popitem(last=False)[1] if len(self._leased) > self._most_leased else None
        for superfluous in (before, oldest):
            if superfluous is not None:
                self._discard(superfluous)

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

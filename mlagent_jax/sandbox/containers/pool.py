"""Which container serves which job, and which stand ready.

A container serves the jobs of one lease, one after the other, and is then destroyed; a job without a lease has
one to itself. Between jobs its worker ends every process and empties every folder, so that a lease saves time
and carries nothing over: a container that is lost or has to make room is replaced by a fresh one, and nobody
notices.
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


@dataclass(frozen=True)
class Slot:
    """The right to run one job on one engine, with one of its GPUs if it has any."""

    engine: Engine
    gpu: str


class ContainerPool:
    """Runs as many jobs at once as there are slots. Thread-safe. `name`: begins the names of its containers."""

    def __init__(self, slots: Sequence[Slot], settings: DockerSettings, preload: tuple[str, ...]) -> None:
        self._engines = {slot.engine for slot in slots}
        self._settings = settings
        self._preload = preload
        self._slots: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        for slot in slots:
            self._slots.put(slot)
        self._most_spares = settings.spares or len(slots)
        self._most_leased = 2 * len(slots)
        self._background = ThreadPoolExecutor(max(2, len(slots)), thread_name_prefix="container")
        self.name = f"mlagent-{secrets.token_hex(4)}"
        self._numbers = itertools.count(random.randrange(1 << 16))
        self._lock = threading.Lock()  # of all that follows
        self._closed = False
        self._alive: set[Container] = set()
        # The least recently used come first.
        self._spares: collections.OrderedDict[_Kind, list[Container]] = collections.OrderedDict()
        self._starting = 0
        self._leased: collections.OrderedDict[tuple[str, _Kind], Container] = collections.OrderedDict()

    @contextlib.contextmanager
    def borrow(self, job: Job, data: str) -> Iterator[Container]:
        """A container for `job`, whose data lies at `data` on the engine's host. Raises WorkerError."""
        slot = self._take_slot()
        container, was_ready = None, True
        try:
            kind = (slot.engine, Shape.of(job.limits, data, slot.gpu))
            container, was_ready = self._take(kind, job)
            yield container
            if job.lease:
                self._keep(job.lease, kind, container)
                container = None
        finally:
            self._slots.put(slot)
            if container is not None:
                self._discard(container)
            if not was_ready:  # the next job of its kind shall not have to wait as this one had
                self._refill(kind, job.limits.wall_seconds)

    def release(self, lease: str) -> None:
        """Ends what is kept for `lease`."""
        with self._lock:
            done = [self._leased.pop(key) for key in list(self._leased) if key[0] == lease]
        for container in done:
            self._discard(container)

    def close(self) -> None:
        """Ends every container, also those that work."""
        with self._lock:
            self._closed = True
            alive = list(self._alive)
            self._spares.clear()
            self._leased.clear()
        list(self._background.map(self._remove, alive))
        self._background.shutdown(wait=True)

    @property
    def ready(self) -> set[str]:
        """The names of the containers that stand ready: spares, and those that are kept for leases."""
        with self._lock:
            spares = {container.name for spares in self._spares.values() for container in spares}
            return spares | {container.name for container in self._leased.values()}

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

    def _take(self, kind: _Kind, job: Job) -> tuple[Container, bool]:
        """The lease's own container, else a spare, else a new one; whether it was ready."""
        seconds = job.limits.wall_seconds
        while (container := self._pop(kind, job.lease)) is not None:
            if container.can_serve(seconds):
                return container, True
            self._discard(container)
        return self._start_patiently(kind, seconds), False

    def _pop(self, kind: _Kind, lease: str) -> Container | None:
        with self._lock:
            if lease and (lease, kind) in self._leased:
                return self._leased.pop((lease, kind))
            if not self._spares.get(kind):
                return None
            self._spares.move_to_end(kind)
            container = self._spares[kind].pop()
        self._refill(kind, container.job_seconds)
        return container

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
        try:
            container.start(self._settings, number, self._preload)
        except BaseException:
            self._discard(container)
            raise
        return container

    def _refill(self, kind: _Kind, seconds: float) -> None:
        """Has a spare of this kind made, in place of one that was taken."""
        with self._lock:
            spares = sum(map(len, self._spares.values())) + self._starting
            if self._closed or (spares >= self._most_spares and not self._drop_oldest_spare(kind)):
                return
            self._starting += 1
            self._background.submit(self._make_spare, kind, seconds)

    def _drop_oldest_spare(self, wanted: _Kind) -> bool:
        """Makes room for a spare of a kind that is in use; whether there was one of another kind."""
        for kind, spares in self._spares.items():
            if kind != wanted and spares:
                self._background.submit(self._remove, spares.pop(0))
                return True
        return False

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
                self._starting -= 1
                if container is not None and not self._closed:
                    self._spares.setdefault(kind, []).append(container)
                    container = None
            if container is not None:
                self._remove(container)

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

"""A pool of workers, each a process that serves one job at a time and is replaced when it is not well."""

from __future__ import annotations

import contextlib
import dataclasses
import queue
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, Protocol

from absl import logging

from mlagent_jax.sandbox import outcome
from mlagent_jax.sandbox.interface import Job, Result, Status
from mlagent_jax.sandbox.sandbox_worker import names, protocol

READY_SECONDS = 120.0  # importing the scientific stack from a slow disk
GRACE_SECONDS = 15.0  # above a job's own limit: filling and reading its workspace, killing its processes
_CLOSE_SECONDS = 6.0
_BUFFER_BYTES = 1 << 20  # large files then take half the time from process to process

# The whole environment of a program; HOME, TMPDIR and the thread counts are set for each job.
ENVIRONMENT = {
    "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
    "HOME": "/tmp",
    "TMPDIR": "/tmp",
    "LANG": "C.UTF-8",
    "MPLBACKEND": "Agg",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "LOKY_MAX_CPU_COUNT": "1",
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    # Threads would reserve 64 MB of addresses each, which count as the program's memory.
    "MALLOC_ARENA_MAX": "2",
}
# What the scripts of the tasks import, ready in every worker before its first job.
PRELOAD = (
    "numpy",
    "numpy.ma",
    "pandas",
    "scipy.linalg",
    "scipy.optimize",
    "scipy.sparse",
    "scipy.stats",
    "sklearn.cluster",
    "sklearn.compose",
    "sklearn.decomposition",
    "sklearn.discriminant_analysis",
    "sklearn.dummy",
    "sklearn.ensemble",
    "sklearn.feature_extraction.text",
    "sklearn.feature_selection",
    "sklearn.gaussian_process",
    "sklearn.impute",
    "sklearn.kernel_approximation",
    "sklearn.kernel_ridge",
    "sklearn.linear_model",
    "sklearn.manifold",
    "sklearn.metrics",
    "sklearn.model_selection",
    "sklearn.naive_bayes",
    "sklearn.neighbors",
    "sklearn.neural_network",
    "sklearn.pipeline",
    "sklearn.preprocessing",
    "sklearn.svm",
    "sklearn.tree",
)

# Starts the worker from the folder that holds its package, named by the first argument.
BOOT = "import sys; sys.path[0] = sys.argv.pop(1); from sandbox_worker import server; server.main()"


class WorkerError(Exception):
    """A worker could not be started, died, or did not answer: nothing that a program should be blamed for."""


class ClosedError(WorkerError):
    """The sandbox is closed: no further attempt makes sense."""


class Worker:
    """One worker process, as seen from the host. Not thread-safe: whoever holds its lease uses it alone."""

    def __init__(self, launch: Callable[[socket.socket, IO[bytes]], subprocess.Popen[bytes]]) -> None:
        """Starts the process without waiting for it; `launch` gets its standard input/output and error."""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._channel, other_end = socket.socketpair()
        for end in (self._channel, other_end):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
        with other_end:
            self._process = launch(other_end, self._errors)
        self._ready = False

    def run(self, body: dict[str, Any], files: dict[str, bytes], wall_seconds: float, max_bytes: int) -> Any:
        """Sends a job and waits for its answer. Raises WorkerError; the worker is of no use after that."""
        try:
            if not self._ready:
                self._channel.settimeout(READY_SECONDS)
                protocol.receive(self._channel, 0)
                self._ready = True
            self._channel.settimeout(wall_seconds + GRACE_SECONDS)
            protocol.send(self._channel, body, files)
            return protocol.receive(self._channel, max_bytes)
        except (OSError, EOFError, protocol.ProtocolError) as error:
            reason = str(error) or type(error).__name__
            raise WorkerError(f"{reason}{self._last_words()}") from error

    def close(self) -> None:
        """Ends the process and all below it. A thread that waits in `run` gets a WorkerError."""
        with contextlib.suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)  # asks it to clean up and go
        # A worker that has served may have a job to end and a folder to remove; another has nothing.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=_CLOSE_SECONDS if self._ready else 0)
        self._process.kill()
        self._process.wait()
        self._channel.close()
        self._errors.close()

    def _last_words(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=1)
        try:
            self._errors.seek(0)
            said = self._errors.read()[-4000:].decode("utf-8", "backslashreplace").strip()
        except ValueError:  # another thread has closed this worker meanwhile
            return ""
        logging.debug("a sandbox worker's last words:\n%s", said)
        return f"; the worker's last words: {said.splitlines()[-1].strip()}" if said else ""


def start_process(
    command: Sequence[str], channel: socket.socket, errors: IO[bytes], env: Mapping[str, str] = ENVIRONMENT
) -> subprocess.Popen[bytes]:
    """Starts a worker's process: `channel` is its standard input and output, `errors` takes its standard error."""
    return subprocess.Popen(
        command,
        stdin=channel.fileno(),
        stdout=channel.fileno(),
        stderr=errors,
        env=env,
        start_new_session=True,
        cwd="/",
    )


class WorkerPool:
    """Runs jobs on `size` workers, each leased to one job at a time. Thread-safe.

    A job whose worker fails is tried on a fresh one, `attempts` times in all.
    """

    def __init__(
        self,
        size: int,
        launch: Callable[[socket.socket, IO[bytes]], subprocess.Popen[bytes]],
        attempts: int = 3,
    ) -> None:
        """Starts all workers at once; the first jobs wait until theirs has imported its modules."""
        if size < 1:
            raise ValueError(f"a sandbox needs at least one worker, not {size}")
        self._launch = launch
        self._attempts = attempts
        # A child that dies with its parent dies when the *thread* that started it ends: this one stays.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="sandbox-starter")
        self._idle: queue.SimpleQueue[Worker | None] = queue.SimpleQueue()
        self._size = size
        self._closed = False
        self._lock = threading.Lock()
        self._workers: set[Worker] = set()
        for _ in range(size):
            self._idle.put(self._start())

    def run(self, job: Job, data: str, seccomp: str) -> Result:
        """See `run_job`."""
        return run_job(job, data, seccomp, self._attempts, self.borrow)

    @contextlib.contextmanager
    def borrow(self) -> Iterator[Worker]:
        """A worker for one job; one that does not come back whole is replaced."""
        worker = self._idle.get()
        sound = False
        try:
            if self._closed:
                raise ClosedError("the sandbox is closed")
            worker = worker or self._start()
            yield worker
            sound = True
        finally:
            # After anything else, Ctrl-C among it, its answer to this job may still be on its way.
            if not sound and worker is not None:
                self._discard(worker)
            self._idle.put(worker if sound else None)

    def close(self) -> None:
        """Ends every worker, also those that are busy: their jobs come back as `SANDBOX_ERROR`."""
        self._closed = True
        with self._lock:
            workers = list(self._workers)
        for worker in workers:
            self._discard(worker)
        self._starter.shutdown()

    def _start(self) -> Worker:
        worker = self._starter.submit(Worker, self._launch).result()
        with self._lock:
            self._workers.add(worker)
        return worker

    def _discard(self, worker: Worker) -> None:
        with self._lock:
            if worker not in self._workers:
                return
            self._workers.remove(worker)
        worker.close()


class JobRunner(Protocol):
    """A worker, whatever it is made of."""

    def run(
        self, body: dict[str, Any], files: dict[str, bytes], wall_seconds: float, max_bytes: int
    ) -> tuple[dict[str, Any], dict[str, bytes]]: ...


def run_job(
    job: Job,
    data: str,
    seccomp: str,
    attempts: int,
    borrow: Callable[[], contextlib.AbstractContextManager[JobRunner]],
    limit_address_space: bool = True,
) -> Result:
    """Runs `job`; a fault of ours is tried again on a fresh worker, and reported if it persists.

    Args:
        data: the job's data as the worker finds it, or "".
        seccomp: see `seccomp.build_filter`.
        borrow: lends a worker for one job; leaving with an exception says that it is of no use any more.
        limit_address_space: of each process, to the job's memory.
    """
    limits = job.limits
    body = {
        "script": job.script,
        "output": job.output,
        "data": data,
        "limits": dataclasses.asdict(limits),
        "limit_address_space": limit_address_space,
        "seccomp": seccomp,
    }
    max_bytes = (limits.workspace_mb << 20) + (limits.output_kb << 10) + 4096
    error = ""
    for attempt in range(1, attempts + 1):
        try:
            with borrow() as worker:
                facts, blobs = worker.run(body, dict(job.files), limits.wall_seconds, max_bytes)
                return outcome.to_result(facts, blobs, limits)
        except ClosedError as failure:
            return Result(Status.SANDBOX_ERROR, error=str(failure))
        except (WorkerError, OSError, protocol.ProtocolError) as failure:
            error = str(failure) if isinstance(failure, WorkerError) else repr(failure)
            if attempt < attempts:
                logging.warning("a sandbox worker failed, the job is tried on a fresh one: %s", error)
    return Result(Status.SANDBOX_ERROR, error=f"no worker could run the job: {error}")


def check_job(job: Job) -> None:
    """Raises ValueError when `job` is not one: a fault of the caller, which no run could mend.

    The files of any result, and one script more, make a job.
    """
    if job.script not in job.files:
        raise ValueError(f"the script {job.script!r} is not among the job's files {sorted(job.files)[:8]}")
    if len(job.files) > names.MAX_FILES:
        raise ValueError(f"a job has {len(job.files)} files, of at most {names.MAX_FILES}")
    for name in job.files:
        if why := names.fault(name):
            raise ValueError(f"{name!r} cannot be a file of a job: it {why}")
    if clash := names.collision(job.files):
        raise ValueError(f"{clash!r} lies below another file")


def data_below(root: Path, data_dir: Path | None) -> str:
    """A job's data folder relative to `root`, or "" for none. Raises ValueError, FileNotFoundError."""
    if data_dir is None:
        return ""
    folder = data_dir.resolve(strict=True)
    if not folder.is_dir() or not folder.is_relative_to(root) or folder == root:
        raise ValueError(f"the data folder {data_dir} is not a folder below the sandbox's data root {root}")
    return folder.relative_to(root).as_posix()

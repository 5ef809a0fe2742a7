"""A pool of workers. Each is a process that serves one job at a time and is replaced when it fails."""

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

START_SECONDS = 120.0  # to import the scientific stack from a slow disk
GRACE_SECONDS = 15.0  # beyond a job's time limit: to write and read its workspace, and kill its processes
_CLOSE_SECONDS = 6.0
_BUFFER_BYTES = 1 << 20  # halves the time that large files take between processes

# The complete environment of a program. HOME, TMPDIR and the thread counts are then set for each job.
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
    # Otherwise each thread would reserve 64 MB of address space, which counts as the program's memory.
    "MALLOC_ARENA_MAX": "2",
}
# What the tasks' scripts import; loaded in every worker before its first job.
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

# Starts the worker. The first argument is the folder that contains its package.
BOOTSTRAP = "import sys; sys.path[0] = sys.argv.pop(1); from sandbox_worker import server; server.main()"


class WorkerError(Exception):
    """A worker could not be started, died, or did not respond. No program is to blame."""


class ClosedError(WorkerError):
    """The sandbox is closed, so there is no point in another attempt."""


class Worker:
    """One worker process, as seen from the host. Not thread-safe: whoever has borrowed it uses it alone."""

    def __init__(self, launch: Callable[[socket.socket, IO[bytes]], subprocess.Popen[bytes]]) -> None:
        """Starts the process without waiting for it. `launch` gets its standard input and output, and its errors."""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._channel, other_end = socket.socketpair()
        for end in (self._channel, other_end):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
        with other_end:
            self._process = launch(other_end, self._errors)
        self._ready = False

    def run(
        self, body: dict[str, Any], files: dict[str, bytes], wall_seconds: float, max_bytes: int
    ) -> protocol.Message:
        """Sends a job and waits for its report. Raises WorkerError; the worker must not be used after that."""
        try:
            if not self._ready:
                self._channel.settimeout(START_SECONDS)
                protocol.receive(self._channel, 0)
                self._ready = True
            self._channel.settimeout(wall_seconds + GRACE_SECONDS)
            protocol.send(self._channel, body, files)
            return protocol.receive(self._channel, max_bytes)
        except (OSError, EOFError, protocol.ProtocolError) as error:
            reason = str(error) or type(error).__name__
            raise WorkerError(f"{reason}{self._last_error_line()}") from error

    def close(self) -> None:
        """Ends the process and its descendants. A thread that waits in `run` gets a WorkerError."""
        with contextlib.suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)  # asks it to clean up and exit
        # Only a worker that has served may have a job to end and a folder to remove.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=_CLOSE_SECONDS if self._ready else 0)
        self._process.kill()
        self._process.wait()
        self._channel.close()
        self._errors.close()

    def _last_error_line(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=1)
        try:
            self._errors.seek(0)
            errors = self._errors.read()[-4000:].decode("utf-8", "backslashreplace").strip()
        except ValueError:  # another thread has closed this worker meanwhile
            return ""
        logging.debug("standard error of a sandbox worker:\n%s", errors)
        return f"; the worker's last error: {errors.splitlines()[-1].strip()}" if errors else ""


def start_process(
    command: Sequence[str], channel: socket.socket, errors: IO[bytes], env: Mapping[str, str] = ENVIRONMENT
) -> subprocess.Popen[bytes]:
    """Starts a worker's process. `channel` is its standard input and output, `errors` receives its standard error."""
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
    """Runs jobs on `size` workers, each lent to one job at a time. Thread-safe.

    A job whose worker fails is tried on a new one, `attempts` times in all.
    """

    def __init__(
        self,
        size: int,
        launch: Callable[[socket.socket, IO[bytes]], subprocess.Popen[bytes]],
        attempts: int = 3,
    ) -> None:
        """Starts all workers at once. The first jobs wait until theirs has imported its modules."""
        if size < 1:
            raise ValueError(f"a sandbox needs at least one worker, not {size}")
        self._launch = launch
        self._attempts = attempts
        # bwrap's --die-with-parent kills the child when the *thread* that started it ends, so this thread stays.
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
        """Lends a worker for one job. If the block raises, the worker is replaced."""
        worker = self._idle.get()
        healthy = False
        try:
            if self._closed:
                raise ClosedError("the sandbox is closed")
            worker = worker or self._start()
            yield worker
            healthy = True
        finally:
            # After any exception, such as Ctrl-C, its report on this job may still arrive.
            if not healthy and worker is not None:
                self._discard(worker)
            self._idle.put(worker if healthy else None)

    def close(self) -> None:
        """Ends every worker, even a busy one: its job then returns `SANDBOX_ERROR`."""
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
    """A worker of any kind: a process or a container."""

    def run(
        self, body: dict[str, Any], files: dict[str, bytes], wall_seconds: float, max_bytes: int
    ) -> protocol.Message: ...


def run_job(
    job: Job,
    data: str,
    seccomp: str,
    attempts: int,
    borrow: Callable[[], contextlib.AbstractContextManager[JobRunner]],
    limit_address_space: bool = True,
) -> Result:
    """Runs `job`. If a worker fails, tries again on a new one; returns `SANDBOX_ERROR` if all attempts fail.

    Args:
        data: the path of the job's data for the worker, or "".
        seccomp: see `seccomp.build_filter`.
        borrow: lends a worker for one job; an exception in its block marks the worker as unusable.
        limit_address_space: whether the address space of each process is limited to the job's memory.
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
                logging.warning("a sandbox worker failed; the job is tried on a new one: %s", error)
    return Result(Status.SANDBOX_ERROR, error=f"no worker could run the job: {error}")


def check_job(job: Job) -> None:
    """Raises ValueError for an invalid job. The caller is at fault, so another attempt could not help.

    The files of any result, together with one more script, are valid files of a job.
    """
    if job.script not in job.files:
        raise ValueError(f"the script {job.script!r} is not among the job's files {sorted(job.files)[:8]}")
    if len(job.files) > names.MAX_FILES:
        raise ValueError(f"a job has {len(job.files)} files, of at most {names.MAX_FILES}")
    for name in job.files:
        if why := names.why_invalid(name):
            raise ValueError(f"{name!r} cannot be a file of a job: it {why}")
    if collision := names.collision(job.files):
        raise ValueError(f"{collision!r} lies below another file")


def relative_data_dir(root: Path, data_dir: Path | None) -> str:
    """A job's data folder relative to `root`, or "" for none. Raises ValueError, FileNotFoundError."""
    if data_dir is None:
        return ""
    folder = data_dir.resolve(strict=True)
    if not folder.is_dir() or not folder.is_relative_to(root) or folder == root:
        raise ValueError(f"the data folder {data_dir} is not a folder below the sandbox's data root {root}")
    return folder.relative_to(root).as_posix()

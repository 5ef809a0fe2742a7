"""The default backend: workers under bubblewrap, which give every job namespaces of its own."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from mlagent_jax.sandbox import confined, drop_root, sandbox_worker, seccomp
from mlagent_jax.sandbox.host import check_fits, python_identity
from mlagent_jax.sandbox.interface import Job, Limits, Result, SandboxUnavailableError
from mlagent_jax.sandbox.pool import BOOTSTRAP, PRELOAD, WorkerPool, check_job, relative_data_dir

# To mount, create namespaces, read what a program made unreadable, measure its memory, forbid user namespaces.
_WORKER_CAPABILITIES = (
    "CAP_SYS_ADMIN",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_PTRACE",
    "CAP_DAC_OVERRIDE",
    "CAP_KILL",
    "CAP_SETPCAP",
)


class BubblewrapSandbox:
    """Runs each job without network, host files, capabilities or other processes; see `Sandbox`.

    Args:
        data_root: the folder that contains every job's `data_dir`.
        workers: how many jobs may run at once.
        preload: modules that every worker imports once, before its first job.
        attempts: how often a job is tried when its worker, not its script, fails.

    Raises:
        FileNotFoundError: `data_root` does not exist, or bubblewrap is not installed.
        SandboxUnavailableError: `data_root` is not readable by the user that root's workers run as.
    """

    name = "bubblewrap"
    isolated = True

    def __init__(
        self, data_root: Path, workers: int = 2, preload: Sequence[str] = PRELOAD, attempts: int = 3
    ) -> None:
        self._preload = preload
        self._data_root = data_root.resolve(strict=True)
        self._seccomp = seccomp.build_filter()
        self._readable: set[str] = set()
        _check_readable(self._data_root)
        self._pool = WorkerPool(workers, self._launch, attempts)

    def identity(self) -> Mapping[str, str]:
        """See `Sandbox.identity`. Scripts run in this very interpreter."""
        return python_identity()

    def run(self, job: Job) -> Result:
        """See `Sandbox.run`.

        Raises:
            ValueError: an invalid job; see `check_job`.
            SandboxUnavailableError: its data is not readable by the user that root's workers run as, or its limits
                exceed this host.
        """
        check_job(job)
        self.check(job.limits)
        data = relative_data_dir(self._data_root, job.data_dir)
        if data and data not in self._readable:
            folder = self._data_root / data
            for path in (folder, *folder.rglob("*")):
                _check_readable(path)
            self._readable.add(data)
        return self._pool.run(job, data, self._seccomp)

    def check(self, limits: Limits) -> None:
        """See `Sandbox.check`."""
        check_fits(limits)

    def release(self, lease: str) -> None:
        """Does nothing: nothing is kept between jobs."""

    def __enter__(self) -> BubblewrapSandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._pool.close()

    def _launch(self, channel: socket.socket, errors: IO[bytes]) -> subprocess.Popen[bytes]:
        worker = Path(sandbox_worker.__file__).parent
        return confined.start(
            [confined.python(), "-c", BOOTSTRAP, "/sandbox", "--isolated", "--preload", *self._preload],
            channel,
            errors,
            visible={str(self._data_root): "/sandbox/data", str(worker): f"/sandbox/{worker.name}"},
            folders=("/dev/shm", "/job", "/tmp", "/workspace"),
            capabilities=_WORKER_CAPABILITIES,
        )


def _check_readable(path: Path) -> None:
    """Root's workers run as another user. Raises SandboxUnavailableError for what that user cannot read."""
    needed = stat.S_IROTH | (stat.S_IXOTH if path.is_dir() else 0)
    if os.geteuid() == 0 and path.stat().st_mode & needed != needed:
        raise SandboxUnavailableError(
            f"{path} is readable by root only, but scripts run as user {drop_root.UNPRIVILEGED_ID}: "
            f"chmod -R o+rX {path}"
        )

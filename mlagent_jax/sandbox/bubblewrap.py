"""The default backend: workers under bubblewrap, whose every job gets namespaces of its own."""

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
from mlagent_jax.sandbox.pool import BOOT, PRELOAD, WorkerPool, check_job, data_below

# Mount and make namespaces, read what a program made unreadable, count its memory, forbid user namespaces.
_WORKER_CAPABILITIES = (
    "CAP_SYS_ADMIN",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_PTRACE",
    "CAP_DAC_OVERRIDE",
    "CAP_KILL",
    "CAP_SETPCAP",
)


class BubblewrapSandbox:
    """Runs each job without network, host files, capabilities or neighbours; see `Sandbox`.

    Args:
        data_root: the folder below which every job's `data_dir` lies.
        workers: how many jobs may run at once.
        preload: modules that every worker imports once, before its first job.
        attempts: how often a job is tried when its worker, not its script, fails.

    Raises:
        FileNotFoundError: no `data_root`, or no bubblewrap in this environment.
        SandboxUnavailableError: `data_root` cannot be read by the user that we become when we are root.
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
        """See `Sandbox.identity`: scripts run by this very interpreter."""
        return python_identity()

    def run(self, job: Job) -> Result:
        """See `Sandbox.run`.

        Raises:
            ValueError: a job that is not one; see `check_job`.
            SandboxUnavailableError: its data cannot be read by the user that we become when we are root, or its
                limits are larger than this host.
        """
        check_job(job)
        self.check(job.limits)
        data = data_below(self._data_root, job.data_dir)
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
        """Nothing is kept between jobs."""

    def __enter__(self) -> BubblewrapSandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._pool.close()

    def _launch(self, channel: socket.socket, errors: IO[bytes]) -> subprocess.Popen[bytes]:
        worker = Path(sandbox_worker.__file__).parent
        return confined.start(
            [confined.python(), "-c", BOOT, "/sandbox", "--isolated", "--preload", *self._preload],
            channel,
            errors,
            visible={str(self._data_root): "/sandbox/data", str(worker): f"/sandbox/{worker.name}"},
            folders=("/dev/shm", "/job", "/tmp", "/workspace"),
            capabilities=_WORKER_CAPABILITIES,
        )


def _check_readable(path: Path) -> None:
    """Root's workers run as another user: raises SandboxUnavailableError for what that one could not read."""
    needed = stat.S_IROTH | (stat.S_IXOTH if path.is_dir() else 0)
    if os.geteuid() == 0 and path.stat().st_mode & needed != needed:
        raise SandboxUnavailableError(
            f"{path} can be read by root only, and scripts run as user {drop_root.UNPRIVILEGED_ID}: "
            f"chmod -R o+rX {path}"
        )

"""The fallback where namespaces are not to be had: the same warm worker, in a plain process with limits.

What it gives: limits of memory, time and file size for each process, a temporary folder, a clean
environment, and an end for everything that the program started. What it does not give: the program can read
and write what its user can, and has the network. Only code that cannot be hostile may run here.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from mlagent_jax.sandbox.host import check_fits, python_identity
from mlagent_jax.sandbox.interface import Job, Limits, Result
from mlagent_jax.sandbox.pool import BOOT, PRELOAD, WorkerPool, check_job, data_below, start_process


class ProcessSandbox:
    """Runs each job in a temporary folder, with a copy of its data; see `Sandbox`.

    Args:
        data_root: the folder below which every job's `data_dir` lies.
        workers: how many jobs may run at once.
        preload: modules that every worker imports once, before its first job.

    Raises:
        FileNotFoundError: no `data_root`.
    """

    name = "process"
    isolated = False

    def __init__(self, data_root: Path, workers: int = 2, preload: Sequence[str] = PRELOAD) -> None:
        self._preload = preload
        self._data_root = data_root.resolve(strict=True)
        self._scratch = tempfile.TemporaryDirectory(prefix="mlagent-sandbox-")
        self._pool = WorkerPool(workers, self._launch)

    def identity(self) -> Mapping[str, str]:
        """See `Sandbox.identity`: scripts run by this very interpreter."""
        return python_identity()

    def run(self, job: Job) -> Result:
        """See `Sandbox.run`. Raises ValueError for a job that is not one, SandboxUnavailableError for one that is
        larger than this host.
        """
        check_job(job)
        self.check(job.limits)
        data = data_below(self._data_root, job.data_dir)
        return self._pool.run(job, str(self._data_root / data) if data else "", "")

    def check(self, limits: Limits) -> None:
        """See `Sandbox.check`."""
        check_fits(limits)

    def release(self, lease: str) -> None:
        """Nothing is kept between jobs."""

    def __enter__(self) -> ProcessSandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._pool.close()
        self._scratch.cleanup()

    def _launch(self, channel: socket.socket, errors: IO[bytes]) -> subprocess.Popen[bytes]:
        here = str(Path(__file__).parent)
        command = [
            sys.executable,
            "-c",
            BOOT,
            here,
            "--scratch",
            self._scratch.name,
            "--preload",
            *self._preload,
        ]
        return start_process(command, channel, errors)

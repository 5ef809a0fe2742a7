"""The fallback where namespaces are not available: the same warm worker, in a plain process with limits.

It limits memory, time and file size of each process, provides a temporary folder and a clean environment, and ends
everything that the program started. It does not isolate: the program can read and write whatever its user can, and
can use the network. Only code that is certainly not hostile may run here.
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
from mlagent_jax.sandbox.pool import (
    BOOTSTRAP,
    PRELOAD,
    WorkerPool,
    check_job,
    relative_data_dir,
    start_process,
)


class ProcessSandbox:
    """Runs each job in a temporary folder, with a copy of its data; see `Sandbox`.

    Args:
        data_root: the folder that contains every job's `data_dir`.
        workers: how many jobs may run at once.
        preload: modules that every worker imports once, before its first job.

    Raises:
        FileNotFoundError: `data_root` does not exist.
    """

    name = "process"
    isolated = False

    def __init__(self, data_root: Path, workers: int = 2, preload: Sequence[str] = PRELOAD) -> None:
        self._preload = preload
        self._data_root = data_root.resolve(strict=True)
        self._scratch = tempfile.TemporaryDirectory(prefix="mlagent-sandbox-")
        self._pool = WorkerPool(workers, self._launch)

    def identity(self) -> Mapping[str, str]:
        """See `Sandbox.identity`. Scripts run in this very interpreter."""
        return python_identity()

    def run(self, job: Job) -> Result:
        """See `Sandbox.run`.

        Raises:
            ValueError: an invalid job; see `check_job`.
            SandboxUnavailableError: its limits exceed this host.
        """
        check_job(job)
        self.check(job.limits)
        data = relative_data_dir(self._data_root, job.data_dir)
        return self._pool.run(job, str(self._data_root / data) if data else "", "")

    def check(self, limits: Limits) -> None:
        """See `Sandbox.check`."""
        check_fits(limits)

    def release(self, lease: str) -> None:
        """Does nothing: nothing is kept between jobs."""

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
            BOOTSTRAP,
            here,
            "--scratch",
            self._scratch.name,
            "--preload",
            *self._preload,
        ]
        return start_process(command, channel, errors)

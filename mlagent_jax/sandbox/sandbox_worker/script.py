"""Runs a script in a forked process so that it sees what it would see under `python train.py`."""

from __future__ import annotations

import atexit
import builtins
import contextlib
import gc
import io
import os
import random
import resource
import signal
import socket
import sys
import threading
import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from . import namespaces, seccomp_agent

# Thread pools that numerical libraries open by themselves. `Limits.threads` sets the size of all of them.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LOKY_MAX_CPU_COUNT")
_MAX_PENDING_SIGNALS = 1024


class PreparationError(Exception):
    """The process of a script could not be prepared. The script is not to blame."""


@dataclass(frozen=True)
class Restrictions:
    """What confines a script's process, beside the limits of its job.

    rlimit_nproc: RLIMIT_NPROC, or None where it would count processes of others.
    rlimit_as: RLIMIT_AS in bytes, or None for no limit.
    seccomp: filter program for `namespaces.drop_privileges`, or "" for none.
    isolated: whether there are privileges to drop, and the script runs in a place of its own.
    """

    rlimit_nproc: int | None
    rlimit_as: int | None
    seccomp: str
    isolated: bool


_READY, _FAULT = b"ready", b"fault "
_START_SECONDS = 30.0
_MAX_FAULT_BYTES = 4096


def run(
    script: str,
    paths: namespaces.JobPaths,
    output: int,
    control: int,
    limits: Mapping[str, Any],
    restrictions: Restrictions,
) -> NoReturn:
    """Becomes the script; never returns.

    Args:
        script: path below the workspace.
        output: file descriptor of the pipe for stdout and stderr.
        control: file descriptor of the socket on which `await_start` waits.
        limits: the fields of `Limits`.
    """
    channel = socket.socket(fileno=control)
    try:
        listener = _prepare(paths, output, control, limits, restrictions)
        socket.send_fds(channel, [_READY], [] if listener is None else [listener])
    except BaseException as error:
        channel.sendall(_FAULT + (str(error) or type(error).__name__).encode()[:_MAX_FAULT_BYTES])
        os._exit(70)
    if listener is not None:
        os.close(listener)
    channel.close()
    del channel
    _exit(_execute(script, paths.workspace))


def await_start(control: socket.socket) -> int | None:
    """Returns when the script is about to begin: the descriptor for its `SeccompAgent`, or None without one.

    Raises PreparationError.
    """
    control.settimeout(_START_SECONDS)
    try:
        message, descriptors, _, _ = socket.recv_fds(control, len(_FAULT) + _MAX_FAULT_BYTES, 1)
    except OSError as error:
        raise PreparationError(f"the script's process did not get ready: {error}") from error
    if message != _READY:
        reason = message.removeprefix(_FAULT).decode("utf-8", "replace") or "it died"
        raise PreparationError(f"the script's process could not be prepared: {reason}")
    return descriptors[0] if descriptors else None


def _prepare(
    paths: namespaces.JobPaths,
    output: int,
    control: int,
    limits: Mapping[str, Any],
    restrictions: Restrictions,
) -> int | None:
    """Does everything that comes before the script. Returns the listener of its seccomp filter, if there is one."""
    os.setsid()
    _redirect_standard_streams(output, control)
    os.chdir(paths.workspace)
    os.environ.update(HOME=paths.temporary, TMPDIR=paths.temporary, PWD=paths.workspace)
    _limit_threads(limits["threads"])
    _limit_resources(limits, restrictions)
    if restrictions.isolated:
        namespaces.drop_privileges(restrictions.seccomp)
    listener = _install_agent_filter(restrictions) if sys.platform == "linux" else None
    if restrictions.isolated:
        namespaces.show_to_siblings()
        _prefer_for_oom_kill()
    return listener


def _install_agent_filter(restrictions: Restrictions) -> int | None:
    if not seccomp_agent.is_known_machine():
        return None
    namespaces.set_no_new_privileges("")
    try:
        return seccomp_agent.install(restrictions.rlimit_as, restrictions.isolated)
    except OSError:  # an old kernel, or an emulated one such as gVisor
        return None


def _prefer_for_oom_kill() -> None:
    """If the kernel runs out of memory, it should kill the program and not its supervisor."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _redirect_standard_streams(output: int, kept: int) -> None:
    """Leaves three open files (no input, and one pipe for both outputs), and for now `kept`."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    for descriptor in map(int, os.listdir("/dev/fd")):  # noqa: PTH208
        if descriptor > 2 and descriptor != kept:
            with contextlib.suppress(OSError):  # the descriptor of the listing itself
                os.close(descriptor)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    # Line-buffered, so that both outputs interleave as written and nothing is lost when time runs out.
    for name, descriptor, errors in (("stdout", 1, "surrogateescape"), ("stderr", 2, "backslashreplace")):
        stream = open(descriptor, "w", 1, encoding="utf-8", errors=errors, closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _limit_threads(threads: int) -> None:
    for variable in _THREAD_VARIABLES:
        os.environ[variable] = str(threads)
    if threads != 1:  # the worker was started with 1
        try:
            import threadpoolctl  # type: ignore[import-untyped]
        except ImportError:
            raise PreparationError(
                f"limits.threads={threads} needs threadpoolctl in the Python that runs the scripts: install it there, "
                "or set limits.threads=1"
            ) from None
        threadpoolctl.threadpool_limits(threads)


def _limit_resources(limits: Mapping[str, Any], restrictions: Restrictions) -> None:
    kinds: list[tuple[int, int | None]] = [
        (resource.RLIMIT_NPROC, restrictions.rlimit_nproc),
        (resource.RLIMIT_CORE, 0),
        # The supervisor enforces the time of each process. This coarser limit is a safety net.
        (resource.RLIMIT_CPU, 2 * limits["cpu_seconds"]),
        (resource.RLIMIT_FSIZE, limits["workspace_mb"] << 20),
        (resource.RLIMIT_NOFILE, limits["open_files"]),
        (resource.RLIMIT_AS, restrictions.rlimit_as),
    ]
    if sys.platform == "linux":
        kinds.append((resource.RLIMIT_SIGPENDING, _MAX_PENDING_SIGNALS))  # also limits timers
    for kind, value in kinds:
        if value is None:
            continue
        _, hard = resource.getrlimit(kind)
        limit = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (limit, limit))


def _execute(script: str, workspace: str) -> int:
    """Runs the script as `__main__`, prints an uncaught exception like Python, and returns the exit code."""
    path = str(Path(workspace, script))
    sys.argv = [script]
    sys.path[0] = str(Path(path).parent)
    for name in [name for name in sys.modules if name.split(".")[0] == __package__]:
        del sys.modules[name]
    main = types.ModuleType("__main__")
    main.__dict__.update(__file__=path, __builtins__=builtins, __cached__=None)
    sys.modules["__main__"] = main
    _set_seeds()
    try:
        with io.open_code(path) as file:
            code = compile(file.read(), path, "exec", dont_inherit=True)
        exec(code, main.__dict__)
        return 0
    except SystemExit as request:
        return _exit_code(request)
    except BaseException as error:
        # The first frame is this function's. The rest is what `python train.py` shows.
        trace = error.__traceback__ and error.__traceback__.tb_next
        with contextlib.suppress(BaseException):
            sys.excepthook(type(error), error.with_traceback(trace), trace)
        return 1


def _set_seeds() -> None:
    """A script that sets no seed gets this one in every worker, so that its result is reproducible."""
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)


def _exit_code(request: SystemExit) -> int:
    if request.code is None:
        return 0
    if isinstance(request.code, int):
        return request.code & 0xFF
    print(request.code, file=sys.stderr)
    return 1


def _exit(code: int) -> NoReturn:
    """Ends like the interpreter, but does not tear down the modules that the worker had imported.

    Waits for threads, runs exit handlers, and drops the script's globals so that its open files are flushed.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for finish in (threading._shutdown, atexit._run_exitfuncs):  # type: ignore[attr-defined]
        with contextlib.suppress(BaseException):
            finish()
    with contextlib.suppress(BaseException):
        sys.modules["__main__"].__dict__.clear()
        gc.collect()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BaseException):
            stream.flush()
    os._exit(code)

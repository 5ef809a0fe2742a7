"""Runs a script in a forked process so that it sees what `python train.py` would have shown it."""

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

from . import namespaces, witness

# Pools of threads that numerical libraries open on their own; `Limits.threads` governs them all.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LOKY_MAX_CPU_COUNT")
_SIGNALS = 1024


class PreparationError(Exception):
    """A script's process could not be made ready: nothing that the script is to blame for."""


@dataclass(frozen=True)
class Walls:
    """What a script's process is confined by, beside the limits of its job.

    processes: RLIMIT_NPROC, or None where it would count processes that are not the job's.
    addresses: RLIMIT_AS in bytes, or None for none.
    seccomp: filter program for `namespaces.drop_privileges`, or "" for none.
    alone: whether there are privileges to give up, and a place that is the job's alone.
    """

    processes: int | None
    addresses: int | None
    seccomp: str
    alone: bool


_READY, _FAULT = b"ready", b"fault "
_START_SECONDS = 30.0
_MOST_WORDS = 4096


def run(
    script: str, places: namespaces.Places, output: int, parent: int, limits: Mapping[str, Any], walls: Walls
) -> NoReturn:
    """Becomes the script; never returns.

    Args:
        script: path below the workspace.
        output: file descriptor of the pipe that takes stdout and stderr.
        parent: file descriptor of the socket on which `await_start` waits.
        limits: the fields of `Limits`.
    """
    channel = socket.socket(fileno=parent)
    try:
        listener = _prepare(places, output, parent, limits, walls)
        socket.send_fds(channel, [_READY], [] if listener is None else [listener])
    except BaseException as error:
        channel.sendall(_FAULT + (str(error) or type(error).__name__).encode()[:_MOST_WORDS])
        os._exit(70)
    if listener is not None:
        os.close(listener)
    channel.close()
    del channel
    _leave(_execute(script, places.workspace))


def await_start(child: socket.socket) -> int | None:
    """Returns when a script is about to begin: the descriptor for its `Witness`, if there is one.

    Raises PreparationError.
    """
    child.settimeout(_START_SECONDS)
    try:
        said, descriptors, _, _ = socket.recv_fds(child, len(_FAULT) + _MOST_WORDS, 1)
    except OSError as error:
        raise PreparationError(f"the script's process did not get ready: {error}") from error
    if said != _READY:
        reason = said.removeprefix(_FAULT).decode("utf-8", "replace") or "it died"
        raise PreparationError(f"the script's process could not be made ready: {reason}")
    return descriptors[0] if descriptors else None


def _prepare(
    places: namespaces.Places, output: int, parent: int, limits: Mapping[str, Any], walls: Walls
) -> int | None:
    """All that comes before the script; the descriptor of the filter that its `Witness` listens to."""
    os.setsid()
    _connect(output, parent)
    os.chdir(places.workspace)
    os.environ.update(HOME=places.temporary, TMPDIR=places.temporary, PWD=places.workspace)
    _limit_threads(limits["threads"])
    _limit_resources(limits, walls)
    if walls.alone:
        namespaces.drop_privileges(walls.seccomp)
    listener = _listen(walls) if sys.platform == "linux" else None
    if walls.alone:
        namespaces.show_to_siblings()
        _volunteer()
    return listener


def _listen(walls: Walls) -> int | None:
    if not witness.is_known_machine():
        return None
    namespaces.filter_calls("")
    try:
        return witness.install(walls.addresses, walls.alone)
    except OSError:  # an old kernel, or one that is not Linux's own
        return None


def _volunteer() -> None:
    """Where the kernel has to kill for want of memory, it shall be the program, not its supervisor."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _connect(output: int, kept: int) -> None:
    """Leaves three open files, no input and one pipe for both outputs, and for now `kept`."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    for descriptor in map(int, os.listdir("/dev/fd")):  # noqa: PTH208
        if descriptor > 2 and descriptor != kept:
            with contextlib.suppress(OSError):  # the one that listed them
                os.close(descriptor)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    # Line by line, so that the two outputs interleave as written and nothing is lost when time runs out.
    for name, descriptor, errors in (("stdout", 1, "surrogateescape"), ("stderr", 2, "backslashreplace")):
        stream = open(descriptor, "w", 1, encoding="utf-8", errors=errors, closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _limit_threads(threads: int) -> None:
    for variable in _THREAD_VARIABLES:
        os.environ[variable] = str(threads)
    if threads != 1:  # what the worker was started with
        try:
            import threadpoolctl  # type: ignore[import-untyped]
        except ImportError:
            raise PreparationError(
                f"limits.threads={threads} needs threadpoolctl beside the libraries that scripts use: install it "
                "there, or set limits.threads=1"
            ) from None
        threadpoolctl.threadpool_limits(threads)


def _limit_resources(limits: Mapping[str, Any], walls: Walls) -> None:
    kinds: list[tuple[int, int | None]] = [
        (resource.RLIMIT_NPROC, walls.processes),
        (resource.RLIMIT_CORE, 0),
        # The supervisor looks at each process's; the kernel, which counts in coarser steps, is there in need.
        (resource.RLIMIT_CPU, 2 * limits["cpu_seconds"]),
        (resource.RLIMIT_FSIZE, limits["workspace_mb"] << 20),
        (resource.RLIMIT_NOFILE, limits["open_files"]),
        (resource.RLIMIT_AS, walls.addresses),
    ]
    if sys.platform == "linux":
        kinds.append((resource.RLIMIT_SIGPENDING, _SIGNALS))  # timers too
    for kind, value in kinds:
        if value is None:
            continue
        _, most = resource.getrlimit(kind)
        ceiling = value if most == resource.RLIM_INFINITY else min(value, most)
        resource.setrlimit(kind, (ceiling, ceiling))


def _execute(script: str, workspace: str) -> int:
    """Runs the script as `__main__`, prints an uncaught exception as Python would, returns the exit code."""
    path = str(Path(workspace, script))
    sys.argv = [script]
    sys.path[0] = str(Path(path).parent)
    for name in [name for name in sys.modules if name.split(".")[0] == __package__]:
        del sys.modules[name]
    main = types.ModuleType("__main__")
    main.__dict__.update(__file__=path, __builtins__=builtins, __cached__=None)
    sys.modules["__main__"] = main
    _fix_seeds()
    try:
        with io.open_code(path) as file:
            code = compile(file.read(), path, "exec", dont_inherit=True)
        exec(code, main.__dict__)
        return 0
    except SystemExit as request:
        return _exit_code(request)
    except BaseException as error:
        # The first frame is this function's: what is left is what `python train.py` shows.
        trace = error.__traceback__ and error.__traceback__.tb_next
        with contextlib.suppress(BaseException):
            sys.excepthook(type(error), error.with_traceback(trace), trace)
        return 1


def _fix_seeds() -> None:
    """A script that sets no seed draws from this one, in every worker: its result can be repeated."""
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


def _leave(code: int) -> NoReturn:
    """Ends as the interpreter does, but without tearing down the modules that the worker had imported.

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

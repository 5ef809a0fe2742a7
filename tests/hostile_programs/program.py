"""One hostile program, and what those that try several deeds begin with."""

from __future__ import annotations

from dataclasses import dataclass

from mlagent_jax.sandbox.interface import Status


@dataclass(frozen=True)
class Hostile:
    """One program.

    statuses: how its execution may end.
    prints: what must stand in its output.
    wall_seconds: its time limit.
    prints_in_docker: if that is something else there.
    """

    name: str
    source: str
    statuses: tuple[Status, ...]
    prints: str = ""
    wall_seconds: float = 10.0
    prints_in_docker: str | None = None


# Tries each of several deeds and prints the name of what refused it.
TRY = """
import ctypes, errno, os, socket
libc = ctypes.CDLL(None, use_errno=True)

def attempt(name, deed):
    try:
        result = deed()
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

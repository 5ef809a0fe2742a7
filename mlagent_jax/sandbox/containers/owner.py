"""Who a container belongs to: labels that tell, on the same host, whether their owner still lives."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

APP = "org.mlagent-jax.sandbox"
_OWNER, _HOST, _DEADLINE = f"{APP}.owner", f"{APP}.host", f"{APP}.deadline"


def labels(life_seconds: float) -> dict[str, str]:
    """The labels of a container that this process starts now, and that ends in `life_seconds` by itself."""
    return {
        APP: "1",
        _OWNER: identity(),
        _HOST: f"{socket.gethostname()} {os.getpid()}",
        _DEADLINE: str(int(time.time() + life_seconds)),
    }


def identity(pid: int | None = None) -> str:
    """A name of a process that no other ever has: boot, pid namespace, pid, and when it was started.

    Raises FileNotFoundError for a pid that is not running.
    """
    pid = pid or os.getpid()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    namespace = Path("/proc/self/ns/pid").stat().st_ino
    started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return f"{boot}/{namespace}/{pid}/{started}"


def is_abandoned(of: Mapping[str, str], now: float | None = None) -> bool:
    """Whether nobody needs the container with these labels any more.

    Its deadline has passed, or its owner was seen to be dead. Of an owner in another boot, host or pid
    namespace nothing can be seen: there the deadline alone counts.
    """
    if APP not in of:
        return False
    try:
        if (time.time() if now is None else now) > float(of[_DEADLINE]):
            return True
        boot, namespace, pid, _ = of[_OWNER].split("/")
        ours = identity().split("/")
        if [boot, namespace] != ours[:2]:
            return False
        return identity(int(pid)) != of[_OWNER]
    except (FileNotFoundError, ProcessLookupError):
        return True
    except (KeyError, ValueError):
        return False  # not labels of ours


def describe(of: Mapping[str, str]) -> str:
    """The owner for a person: host name and pid."""
    return of.get(_HOST, "unknown")

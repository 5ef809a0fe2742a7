"""The owner of a container: labels that show, on the same host, whether the owner is still alive."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

APP = "org.mlagent-jax.sandbox"
_OWNER, _HOST, _DEADLINE = f"{APP}.owner", f"{APP}.host", f"{APP}.deadline"


def labels(life_seconds: float) -> dict[str, str]:
    """The labels of a container that this process starts now and that ends by itself in `life_seconds`."""
    return {
        APP: "1",
        _OWNER: process_identity(),
        _HOST: f"{socket.gethostname()} {os.getpid()}",
        _DEADLINE: str(int(time.time() + life_seconds)),
    }


def process_identity(pid: int | None = None) -> str:
    """A unique name for a process, by default this one: boot id, pid namespace, pid and start time.

    Raises FileNotFoundError for a pid that is not running.
    """
    pid = pid or os.getpid()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    namespace = Path("/proc/self/ns/pid").stat().st_ino
    started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return f"{boot}/{namespace}/{pid}/{started}"


def is_abandoned(labels: Mapping[str, str], now: float | None = None) -> bool:
    """Whether nobody needs the container with these labels any more.

    That is so if its deadline has passed or its owner is dead. Owners in another boot, host or pid namespace are not
    visible; for their containers only the deadline counts.
    """
    if APP not in labels:
        return False
    try:
        if (time.time() if now is None else now) > float(labels[_DEADLINE]):
            return True
        boot, namespace, pid, _ = labels[_OWNER].split("/")
        ours = process_identity().split("/")
        if [boot, namespace] != ours[:2]:
            return False
        return process_identity(int(pid)) != labels[_OWNER]
    except (FileNotFoundError, ProcessLookupError):
        return True
    except (KeyError, ValueError):
        return False  # not labels of ours


def describe(labels: Mapping[str, str]) -> str:
    """The owner for messages: host name and pid."""
    return labels.get(_HOST, "unknown")

"""Starts bubblewrap as an unprivileged user when we are root: no process in a sandbox is the host's root.

A user namespace made by root would leave its processes root in the host's eyes: owners of /proc/sys, for
one. The unprivileged user, on the other hand, may not be able to reach what the sandbox is to show: a Python
below /root, say. So this small program, run as root in a mount namespace of its own, mounts those folders
where that user can reach them, gives up root, and becomes bubblewrap. It runs as a script, on the standard
library and its neighbour `sandbox_worker.namespaces` alone.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

UNPRIVILEGED_ID = 65534
_STAGE = "/tmp"  # of the new mount namespace: the host's is not touched


def command(program: str, folders: list[str], arguments: Callable[[dict[str, str]], list[str]]) -> list[str]:
    """The command that runs `program` as `UNPRIVILEGED_ID`, able to reach `folders`.

    Args:
        program: bwrap; it must lie below one of `folders` or be world-reachable.
        folders: paths on the host.
        arguments: from {folder: where the program finds it} to the program's arguments.
    """
    found_at = {folder: f"{_STAGE}/{number}" for number, folder in enumerate(folders)}
    inside = [folder for folder in folders if program.startswith(f"{folder}/")]
    if inside:
        program = found_at[inside[0]] + program.removeprefix(inside[0])
    plan = json.dumps({"folders": found_at, "argv": [program, *arguments(found_at)]})
    return [sys.executable, "-I", "-S", __file__, plan]


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parent))
    from sandbox_worker import namespaces  # type: ignore[import-not-found]

    plan = json.loads(sys.argv[1])
    namespaces.unshare(namespaces.CLONE_NEWNS)
    namespaces.mount("", "/", flags=namespaces.MS_REC | namespaces.MS_PRIVATE)
    # Open first: the stage may hide them.
    opened = {folder: os.open(folder, os.O_PATH) for folder in plan["folders"]}
    namespaces.mount("tmpfs", _STAGE, "tmpfs", options="size=64k,mode=0755")
    for folder, place in plan["folders"].items():
        Path(place).mkdir()
        source = f"/proc/self/fd/{opened[folder]}"
        namespaces.mount(source, place, flags=namespaces.MS_BIND | namespaces.MS_REC)
        os.close(opened[folder])
    os.setgroups([])
    os.setresgid(UNPRIVILEGED_ID, UNPRIVILEGED_ID, UNPRIVILEGED_ID)
    os.setresuid(UNPRIVILEGED_ID, UNPRIVILEGED_ID, UNPRIVILEGED_ID)
    os.execve(plan["argv"][0], plan["argv"], {})


if __name__ == "__main__":
    main()

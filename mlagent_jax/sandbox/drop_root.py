"""Starts bubblewrap as an unprivileged user when this process is root, so that no process in a sandbox is host root.

The processes of a user namespace that root creates are still root to the host; they own /proc/sys, for example. The
unprivileged user, on the other hand, may not be able to reach what the sandbox should show, such as a Python below
/root. So this small program runs as root in a mount namespace of its own, mounts those folders where that user can
reach them, drops root, and becomes bubblewrap. It runs as a script, on the standard library and
`sandbox_worker.namespaces` alone.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

UNPRIVILEGED_ID = 65534
_STAGING_FOLDER = "/tmp"  # in the new mount namespace; the host's is not touched


def command(program: str, folders: list[str], arguments: Callable[[dict[str, str]], list[str]]) -> list[str]:
    """The command that runs `program` as `UNPRIVILEGED_ID` with access to `folders`.

    Args:
        program: bwrap; it must lie below one of `folders` or be reachable for everyone.
        folders: paths on the host.
        arguments: maps {folder: where the program finds it} to the program's arguments.
    """
    staged = {folder: f"{_STAGING_FOLDER}/{number}" for number, folder in enumerate(folders)}
    inside = [folder for folder in folders if program.startswith(f"{folder}/")]
    if inside:
        program = staged[inside[0]] + program.removeprefix(inside[0])
    plan = json.dumps({"folders": staged, "argv": [program, *arguments(staged)]})
    return [sys.executable, "-I", "-S", __file__, plan]


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parent))
    from sandbox_worker import namespaces  # type: ignore[import-not-found]

    plan = json.loads(sys.argv[1])
    namespaces.unshare(namespaces.CLONE_NEWNS)
    namespaces.mount("", "/", flags=namespaces.MS_REC | namespaces.MS_PRIVATE)
    # Open them first: the staging folder may hide them.
    opened = {folder: os.open(folder, os.O_PATH) for folder in plan["folders"]}
    namespaces.mount("tmpfs", _STAGING_FOLDER, "tmpfs", options="size=64k,mode=0755")
    for folder, target in plan["folders"].items():
        Path(target).mkdir()
        source = f"/proc/self/fd/{opened[folder]}"
        namespaces.mount(source, target, flags=namespaces.MS_BIND | namespaces.MS_REC)
        os.close(opened[folder])
    os.setgroups([])
    os.setresgid(UNPRIVILEGED_ID, UNPRIVILEGED_ID, UNPRIVILEGED_ID)
    os.setresuid(UNPRIVILEGED_ID, UNPRIVILEGED_ID, UNPRIVILEGED_ID)
    os.execve(plan["argv"][0], plan["argv"], {})


if __name__ == "__main__":
    main()

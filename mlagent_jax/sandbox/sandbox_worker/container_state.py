"""What a container keeps from one job to the next, and how it is reset in between."""

from __future__ import annotations

import os

from . import exposure, namespaces, workspace
from .counters import ContainerUsedUpError, Counters
from .zygote import Zygote

# The writable folders of a container, each a tmpfs of limited size.
PATHS = namespaces.JobPaths("/workspace", "/tmp")


class ContainerState:
    """The state of a container in process 1.

    Attributes:
        zygote: scripts are its forks.
        exposed: what the engine does not hide of earlier jobs; see `exposure`.
    """

    def __init__(self, zygote: Zygote) -> None:
        """`zygote`: may still be loading. Raises OSError."""
        self.zygote = zygote
        clear_folders()  # engines differ in how they create them; this makes them the same for the first job
        self.exposed = exposure.find_exposed()
        self._counters = Counters([PATHS.workspace, PATHS.temporary, "/dev/shm"])

    def prepare(self) -> None:
        """Call before each job. Raises OSError."""
        self._counters.reset_times()

    def reset(self) -> None:
        """Restores the state before the job.

        Raises ContainerUsedUpError, OSError, RecursionError. The container must end then.
        """
        clear_folders()
        if not self.zygote.is_undisturbed():
            raise ContainerUsedUpError("the job disturbed the process that scripts are forked from")
        self._counters.normalize()


def clear_folders() -> None:
    """Restores the writable folders to their state when the container started. Raises OSError, RecursionError."""
    for folder in (PATHS.workspace, PATHS.temporary, "/dev/shm", "/dev/mqueue"):
        workspace.clear(folder, "data" if os.path.ismount(f"{folder}/data") else "")

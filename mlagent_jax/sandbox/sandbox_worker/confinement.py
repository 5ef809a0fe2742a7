"""How a worker isolates its jobs."""

from __future__ import annotations

import enum


class Confinement(enum.Enum):
    """What isolates a job."""

    NAMESPACES = "namespaces"  # its own, in a user namespace in which the supervisor has capabilities
    CONTAINER = "container"  # one that an engine has set up; the supervisor has no capability
    NONE = "none"

"""The size and identity of this host, for backends that run jobs on it."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import platform
from collections.abc import Mapping

from mlagent_jax.sandbox.interface import Limits, SandboxUnavailableError


def check_fits(limits: Limits) -> None:
    """Raises SandboxUnavailableError when one job with these limits could use more memory than the host has."""
    host_mb = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    needed_mb = limits.memory_mb + limits.workspace_mb
    if needed_mb > host_mb:
        raise SandboxUnavailableError(
            f"A job of {needed_mb} MB ({limits.memory_mb} of memory and {limits.workspace_mb} of files in memory) is "
            f"larger than this host with its {host_mb} MB: lower the task's limits.memory_mb or workspace_mb."
        )


@functools.cache
def python_identity() -> Mapping[str, str]:
    """The identity of backends that run scripts in this very interpreter; see `Sandbox.identity`."""
    packages = sorted({f"{one.name}=={one.version}" for one in importlib.metadata.distributions()})
    return {
        "machine": platform.machine(),
        "python": platform.python_version(),
        "packages": hashlib.sha256("\n".join(packages).encode()).hexdigest(),
    }

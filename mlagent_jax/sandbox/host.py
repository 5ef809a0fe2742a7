"""What this host can hold, for backends that run jobs on it."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import platform
from collections.abc import Mapping

from mlagent_jax.sandbox.interface import Limits, SandboxUnavailableError


def check_fits(limits: Limits) -> None:
    """Raises SandboxUnavailableError when one job with these limits could take more memory than there is."""
    host_mb = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    wanted = limits.memory_mb + limits.workspace_mb
    if wanted > host_mb:
        raise SandboxUnavailableError(
            f"A job of {wanted} MB ({limits.memory_mb} of memory and {limits.workspace_mb} of files in memory) is "
            f"larger than this host with its {host_mb} MB: lower the task's limits.memory_mb or workspace_mb."
        )


@functools.cache
def python_identity() -> Mapping[str, str]:
    """Of this interpreter, which backends that run jobs on this host give to scripts: see `Sandbox.identity`."""
    packages = sorted({f"{one.name}=={one.version}" for one in importlib.metadata.distributions()})
    return {
        "machine": platform.machine(),
        "python": platform.python_version(),
        "packages": hashlib.sha256("\n".join(packages).encode()).hexdigest(),
    }

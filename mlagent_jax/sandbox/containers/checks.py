"""Checks, before any work starts, whether an engine supports what is asked of it. Errors name the remedy."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from mlagent_jax.sandbox.containers.engine import Engine, EngineError
from mlagent_jax.sandbox.containers.settings import DockerSettings
from mlagent_jax.sandbox.interface import SandboxUnavailableError

_MIN_API_VERSION = (1, 41)  # Docker 20.10: private IPC, device requests, and seccomp rules with error numbers
_MIN_FREE_MB = 1024
_LIMITS = {
    "MemoryLimit": "memory",
    "SwapLimit": "swap",
    "PidsLimit": "processes",
    "CpuCfsQuota": "processor time",
}


def check_engine(engine: Engine, settings: DockerSettings) -> dict[str, Any]:
    """The engine's information about itself. Raises SandboxUnavailableError if it cannot be used."""
    try:
        version = engine.call("report its version", lambda client: client.version())
        facts = engine.call("describe itself", lambda client: client.info())
    except EngineError as error:
        raise SandboxUnavailableError(no_engine(engine, str(error))) from error
    if tuple(map(int, version["ApiVersion"].split("."))) < _MIN_API_VERSION:
        raise SandboxUnavailableError(
            f"The engine at {engine.label} is Docker {version['Version']}, but only 20.10 and later isolate "
            "well enough: upgrade it."
        )
    if facts.get("OSType") != "linux":
        raise SandboxUnavailableError(
            f"The engine at {engine.label} runs {facts.get('OSType')} containers, but the sandbox needs Linux ones."
        )
    missing = [name for key, name in _LIMITS.items() if not facts.get(key)]
    if missing:
        raise SandboxUnavailableError(
            f"The engine at {engine.label} cannot limit {', '.join(missing)}, so one script could use up the "
            "whole host: give it control groups for memory, pids and cpu (if it runs in a container, start that with "
            "--privileged; for swap on Debian, boot with swapaccount=1)."
        )
    if not any("seccomp" in option for option in facts.get("SecurityOptions") or ()):
        raise SandboxUnavailableError(
            f"The engine at {engine.label} has no seccomp, so scripts could use every system call: use a kernel "
            "with CONFIG_SECCOMP_FILTER."
        )
    if settings.runtime and settings.runtime not in (facts.get("Runtimes") or {}):
        raise SandboxUnavailableError(
            f"The engine at {engine.label} does not know the runtime {settings.runtime!r}, only "
            f"{', '.join(sorted(facts.get('Runtimes') or {}))}: install it and name it in /etc/docker/daemon.json."
        )
    _check_disk(engine, Path(facts.get("DockerRootDir") or "/"))
    check_image(engine, settings)
    return facts


def check_image(engine: Engine, settings: DockerSettings) -> str:
    """The id of the image on `engine`. Raises SandboxUnavailableError."""
    try:
        return engine.call("inspect the image", lambda client: client.inspect_image(settings.image))["Id"]
    except EngineError as error:
        if not error.missing:
            raise SandboxUnavailableError(no_engine(engine, str(error))) from error
        raise SandboxUnavailableError(
            f"The engine at {engine.label} has no image {settings.image!r}: build it with "
            f"`docker build -t {settings.image} launch/docker`, or without a registry with "
            f"launch/docker/build_image.sh {settings.image}."
        ) from error


def check_size(engine: Engine, facts: dict[str, Any], container_mb: int, cpus: int) -> None:
    """Raises SandboxUnavailableError when one container would exceed the engine's host."""
    host_mb = facts["MemTotal"] >> 20
    if container_mb > host_mb:
        raise SandboxUnavailableError(
            f"A container of {container_mb} MB is larger than the host of {engine.label}, which has {host_mb} MB: "
            "lower the task's limits.memory_mb or workspace_mb."
        )
    if cpus > facts["NCPU"]:
        raise SandboxUnavailableError(
            f"A container with {cpus} processors is larger than the host of {engine.label}, which has "
            f"{facts['NCPU']}: lower the task's limits.threads."
        )


def _check_disk(engine: Engine, root: Path) -> None:
    """Checks the disk of an engine on this host: on a full one no container starts, and no error says why."""
    if not root.exists():
        return
    free_mb = shutil.disk_usage(root).free >> 20
    if free_mb < _MIN_FREE_MB:
        raise SandboxUnavailableError(
            f"The disk of the engine at {engine.label} has {free_mb} MB left at {root}, but {_MIN_FREE_MB} are "
            "needed: `docker system prune` removes what no container uses."
        )


def no_engine(engine: Engine, reason: str) -> str:
    """The message for an engine that does not answer, with the remedy."""
    another = "name another engine in sandbox.docker.engines (--engine of experiments.sandbox)"
    if "ermission denied" in reason:
        remedy = "add this user to the group of its socket (usually `docker`), or run as root"
    elif "No such file" in reason or "refused" in reason:
        remedy = f"start it (`systemctl start docker`, or dockerd), or {another}"
    elif "paramiko" in reason:
        remedy = "pip install 'docker[ssh]'"
    elif "Invalid bind address" in reason:
        remedy = "addresses begin with unix://, tcp:// or ssh://"
    else:
        remedy = f"see its log, or {another}"
    return f"No engine answers at {engine.label} (it {reason.removeprefix(f'{engine.label} ')}): {remedy}."

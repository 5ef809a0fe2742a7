"""Chooses a backend for this host, and warns about what it does not guarantee."""

from __future__ import annotations

from pathlib import Path

from absl import logging

from mlagent_jax.sandbox.bubblewrap import BubblewrapSandbox
from mlagent_jax.sandbox.containers.settings import DockerSettings
from mlagent_jax.sandbox.guard import GuardedSandbox
from mlagent_jax.sandbox.interface import Job, SandboxUnavailableError, Status
from mlagent_jax.sandbox.process import ProcessSandbox

BACKENDS = ("auto", "bubblewrap", "process", "docker", "ray")


def open_sandbox(
    backend: str,
    workers: int,
    data_root: Path,
    allow_unisolated: bool,
    writes_free_code: bool,
    docker: DockerSettings | None = None,
    ray_address: str = "",
    ray_backend: str = "bubblewrap",
) -> GuardedSandbox:
    """Opens a sandbox with `workers` warm workers; the caller closes it.

    Args:
        backend: "bubblewrap", "docker", "ray", "process", or "auto": bubblewrap where it works, else process.
        data_root: the folder that contains every job's data.
        allow_unisolated: the user explicitly allows model-written code without isolation.
        writes_free_code: the code to run may be anything that a model writes, not only our own edits.
        docker: settings of backend "docker".
        ray_address, ray_backend: of backend "ray"; see `ray.RaySandbox`.

    Returns:
        A sandbox that raises SandboxUnavailableError when it fails repeatedly.

    Raises:
        SandboxUnavailableError: isolation does not work on this host, and either free code has to run or an isolating
            backend was named.
        FileNotFoundError: `data_root` does not exist.
        ValueError: an unknown backend.
    """
    if backend not in BACKENDS:
        raise ValueError(f"unknown sandbox backend {backend!r}: choose one of {', '.join(BACKENDS)}")
    data_root.resolve(strict=True)
    if backend == "docker":
        # Imported here since Docker's client takes a while.
        from mlagent_jax.sandbox.docker import DockerSandbox

        return GuardedSandbox(DockerSandbox(data_root, workers, settings=docker))
    if backend == "ray":
        from mlagent_jax.sandbox.ray import RaySandbox

        return GuardedSandbox(RaySandbox(data_root, workers, ray_backend, ray_address, docker))
    if backend == "process":
        _check_unisolated("backend process was chosen", allow_unisolated, writes_free_code)
        return GuardedSandbox(ProcessSandbox(data_root, workers))
    reason = why_not_bubblewrap(data_root)
    if not reason:
        return GuardedSandbox(BubblewrapSandbox(data_root, workers))
    if backend == "bubblewrap":
        raise SandboxUnavailableError(f"The bubblewrap sandbox does not work here ({reason}). {_REMEDY}")
    _check_unisolated(reason, allow_unisolated, writes_free_code)
    return GuardedSandbox(ProcessSandbox(data_root, workers))


def _check_unisolated(reason: str, allow_unisolated: bool, writes_free_code: bool) -> None:
    """Warns that scripts run without isolation.

    reason: why there is none. Raises SandboxUnavailableError where free code has to run and the user has not allowed
    it.
    """
    if writes_free_code and not allow_unisolated:
        raise SandboxUnavailableError(
            "This run executes code that a model writes, and nothing would isolate it on this host "
            f"({reason}). {_REMEDY} To run it unisolated at your own risk, set sandbox.allow_unisolated=True."
        )
    logging.warning(
        "SCRIPTS RUN WITHOUT ISOLATION (%s). They are limited in time, memory and file size, but can read "
        "and write whatever this user can, use the network, and see other processes. %s",
        reason,
        "A model writes the code: you have allowed this."
        if writes_free_code
        else "All code is from our own edits.",
    )


_REMEDY = (
    "Use a host that allows unprivileged user namespaces (sysctl user.max_user_namespaces above 0; on Ubuntu "
    "also kernel.apparmor_restrict_unprivileged_userns=0; in a container, start it with --privileged)."
)


def why_not_bubblewrap(data_root: Path) -> str:
    """Why bubblewrap cannot isolate a program on this host, found by running a small one; "" if it can."""
    program = b"import os; print(os.getpid())"
    try:
        with BubblewrapSandbox(data_root, workers=1, preload=(), attempts=1) as sandbox:
            result = sandbox.run(Job({"probe.py": program}, "probe.py"))
    except FileNotFoundError as error:
        return str(error)
    if result.status is Status.OK and result.output == "2\n":  # the only process beside its supervisor
        return ""
    return result.error or f"a test program ended as {result.status}: {result.output[-200:].strip()}"

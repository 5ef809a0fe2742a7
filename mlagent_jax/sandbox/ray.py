"""The Ray backend: jobs spread over many machines, each run by another backend on the node it comes to.

A job is a Ray task that asks for its processors and memory, so Ray places it, queues it, and runs it again
when its node dies. A Ray worker process opens its sandbox once and keeps it warm. Nothing of a job is kept in
the cluster: a driver that starts again connects and goes on.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from absl import logging

from mlagent_jax.sandbox.bubblewrap import BubblewrapSandbox
from mlagent_jax.sandbox.containers.settings import DockerSettings
from mlagent_jax.sandbox.docker import DockerSandbox
from mlagent_jax.sandbox.interface import Job, Limits, Result, Sandbox, SandboxUnavailableError, Status
from mlagent_jax.sandbox.pool import GRACE_SECONDS, check_job, data_below

BACKENDS = ("bubblewrap", "docker")
_RETRIES = 3  # by Ray, of a task whose node or process died
_ATTEMPTS = 2  # by us, beyond those
_PATIENCE_SECONDS = 300.0  # in the queue, above a job's own time
_WORKER_MB = 256  # for the warm worker beside its program


class RaySandbox:
    """Runs each job on some node of a Ray cluster; see `Sandbox`.

    Args:
        data_root: the folder below which every job's `data_dir` lies, at the same path on all nodes.
        workers: how many jobs may be in the cluster at once, waiting ones too.
        backend: what runs them there: "bubblewrap" or "docker".
        address: of the cluster, as `ray.init` has it; "" for the one that the environment names, or a new one
            on this machine.
        docker: settings of backend "docker".

    Raises:
        FileNotFoundError: no `data_root`.
        SandboxUnavailableError: no Ray here, or no cluster at `address`.
    """

    def __init__(
        self,
        data_root: Path,
        workers: int,
        backend: str = "bubblewrap",
        address: str = "",
        docker: DockerSettings | None = None,
    ) -> None:
        if backend not in BACKENDS:
            raise ValueError(f"unknown backend {backend!r} for Ray: choose one of {', '.join(BACKENDS)}")
        self._data_root = data_root.resolve(strict=True)
        self._opening = (backend, str(self._data_root), docker or DockerSettings())
        self.name = f"ray-{backend}"
        self._slots = threading.BoundedSemaphore(workers)
        self._closed = False
        self._ray, self._is_ours = _connect(address)
        self._task = self._ray.remote(max_retries=_RETRIES, scheduling_strategy="SPREAD")(_run_here)

    @property
    def isolated(self) -> bool:
        return True

    def identity(self) -> Mapping[str, str]:
        """See `Sandbox.identity`: as a node of the cluster says. Raises SandboxUnavailableError."""
        ask = self._ray.remote(num_cpus=0, max_retries=_RETRIES)(_identify_here)
        try:
            return self._ray.get(ask.remote(self._opening), timeout=_PATIENCE_SECONDS)
        except Exception as failure:  # whatever Ray wraps the node's own in
            raise _as_unavailable(failure) from failure

    def run(self, job: Job) -> Result:
        """See `Sandbox.run`.

        Raises:
            ValueError: a job that is not one; see `check_job`.
            SandboxUnavailableError: a node cannot run any; its reason.
        """
        check_job(job)
        data_below(self._data_root, job.data_dir)
        error = ""
        with self._slots:
            for _ in range(_ATTEMPTS):
                if self._closed:
                    return Result(Status.SANDBOX_ERROR, error="the sandbox is closed")
                try:
                    return self._run_once(job)
                except self._ray.exceptions.RayTaskError as failure:
                    raise _as_unavailable(failure) from failure
                except self._ray.exceptions.RayError as failure:
                    error = f"{type(failure).__name__}: {str(failure).strip().splitlines()[0]}"
                    logging.warning("a job was lost in the Ray cluster, and is sent again: %s", error)
        return Result(Status.SANDBOX_ERROR, error=f"no node could run the job: {error}")

    def check(self, limits: Limits) -> None:
        """Nothing to say before: a cluster may grow, and Ray waits for a node that is large enough."""

    def release(self, lease: str) -> None:
        """Leases save time within a node; they are not followed over nodes, and end with their containers."""

    def __enter__(self) -> RaySandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._closed = True
        if self._is_ours:
            self._ray.shutdown()

    def _run_once(self, job: Job) -> Result:
        task = self._task.options(
            num_cpus=job.limits.threads, memory=(job.limits.memory_mb + _WORKER_MB) << 20
        ).remote(self._opening, job)
        try:
            return self._ray.get(task, timeout=job.limits.wall_seconds + GRACE_SECONDS + _PATIENCE_SECONDS)
        except BaseException:
            with contextlib.suppress(Exception):
                self._ray.cancel(task, force=True)
            raise


def _connect(address: str) -> tuple[ModuleType, bool]:
    """The `ray` module, connected, and whether it was we who connected it."""
    try:
        import ray
    except ImportError as error:
        raise SandboxUnavailableError("backend ray needs Ray: pip install 'mlagent-jax[ray]'") from error
    if ray.is_initialized():
        return ray, False
    try:
        ray.init(
            address=address or None,
            log_to_driver=False,
            include_dashboard=False,
            # A cluster that only this machine can reach: Ray would look for its node at the outer address.
            _node_ip_address=address.partition(":")[0] if address.startswith("127.") else None,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise SandboxUnavailableError(
            f"No Ray cluster answers at {address or 'the address in RAY_ADDRESS'} ({error}): start one with "
            "`ray start --head`, and name its address in sandbox.ray_address."
        ) from error
    return ray, True


# One for each process that Ray runs tasks in: it has one task at a time.
_opened: dict[Any, Sandbox] = {}


def _run_here(opening: tuple[str, str, DockerSettings], job: Job) -> Result:
    """The task: runs on a node."""
    return _open_here(opening).run(job)


def _identify_here(opening: tuple[str, str, DockerSettings]) -> Mapping[str, str]:
    return _open_here(opening).identity()


def _open_here(opening: tuple[str, str, DockerSettings]) -> Sandbox:
    if opening not in _opened:
        backend, data_root, docker = opening
        if backend == "docker":
            _opened[opening] = DockerSandbox(Path(data_root), workers=1, settings=docker)
        else:
            _opened[opening] = BubblewrapSandbox(Path(data_root), workers=1)
    return _opened[opening]


def _as_unavailable(failure: Any) -> SandboxUnavailableError:
    cause = getattr(failure, "cause", failure)
    if isinstance(cause, SandboxUnavailableError):
        return cause
    if isinstance(cause, FileNotFoundError):
        return SandboxUnavailableError(
            f"A node of the Ray cluster lacks what a job needs ({cause}): install this project there, and put "
            "the data on a file system that all nodes share."
        )
    return SandboxUnavailableError(f"A node of the Ray cluster cannot run jobs: {cause!r}")

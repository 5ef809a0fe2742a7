"""The Ray backend: spreads jobs over many machines; another backend runs them on each node.

A job is a Ray task that requests its processors and memory, so Ray places it, queues it, and runs it again when its
node dies. A Ray worker process opens its sandbox once and keeps it warm. The cluster keeps no state of a job: a
driver that restarts connects and continues.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from absl import logging

from mlagent_jax.sandbox.bubblewrap import BubblewrapSandbox
from mlagent_jax.sandbox.containers.settings import DockerSettings
from mlagent_jax.sandbox.interface import Job, Limits, Result, Sandbox, SandboxUnavailableError, Status
from mlagent_jax.sandbox.pool import GRACE_SECONDS, check_job, relative_data_dir

BACKENDS = ("bubblewrap", "docker")
_RETRIES = 3  # by Ray, of a task whose node or process died
_ATTEMPTS = 2  # by us, each with those retries
_QUEUE_SECONDS = 300.0  # that a job may wait in the queue, beside its own time
_WORKER_MB = 256  # for the warm worker beside its program


class RaySandbox:
    """Runs each job on some node of a Ray cluster; see `Sandbox`.

    Args:
        data_root: the folder that contains every job's `data_dir`, at the same path on all nodes.
        workers: how many jobs may be in the cluster at once, queued ones included.
        backend: what runs them on a node: "bubblewrap" or "docker".
        address: of the cluster, as for `ray.init`; "" for the one that the environment names, or a new one on this
            machine.
        docker: settings of backend "docker".

    Raises:
        FileNotFoundError: `data_root` does not exist.
        SandboxUnavailableError: Ray is not installed, or there is no cluster at `address`.
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
        self._spec = _NodeSandbox(backend, str(self._data_root), docker or DockerSettings())
        self.name = f"ray-{backend}"
        self._slots = threading.BoundedSemaphore(workers)
        self._closed = False
        self._ray, self._owns_connection = _connect(address)
        self._task = self._ray.remote(max_retries=_RETRIES, scheduling_strategy="SPREAD")(_run_here)

    @property
    def isolated(self) -> bool:
        return True

    def identity(self) -> Mapping[str, str]:
        """See `Sandbox.identity`. As reported by one node of the cluster. Raises SandboxUnavailableError."""
        task = self._ray.remote(num_cpus=0, max_retries=_RETRIES)(_identify_here)
        try:
            return self._ray.get(task.remote(self._spec), timeout=_QUEUE_SECONDS)
        except Exception as failure:  # Ray wraps the node's own exception in one of several classes
            raise _as_unavailable(failure) from failure

    def run(self, job: Job) -> Result:
        """See `Sandbox.run`.

        Raises:
            ValueError: an invalid job; see `check_job`.
            SandboxUnavailableError: a node cannot run any job; the message gives its reason.
        """
        check_job(job)
        relative_data_dir(self._data_root, job.data_dir)
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
                    logging.warning("a job was lost in the Ray cluster and is submitted again: %s", error)
        return Result(Status.SANDBOX_ERROR, error=f"no node could run the job: {error}")

    def check(self, limits: Limits) -> None:
        """Does nothing: a cluster may grow, and Ray waits for a node that is large enough."""

    def release(self, lease: str) -> None:
        """Does nothing: leases save time within a node, are not tracked across nodes, and end with containers."""

    def __enter__(self) -> RaySandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._closed = True
        if self._owns_connection:
            self._ray.shutdown()

    def _run_once(self, job: Job) -> Result:
        task = self._task.options(
            num_cpus=job.limits.threads, memory=(job.limits.memory_mb + _WORKER_MB) << 20
        ).remote(self._spec, job)
        try:
            return self._ray.get(task, timeout=job.limits.wall_seconds + GRACE_SECONDS + _QUEUE_SECONDS)
        except BaseException:
            with contextlib.suppress(Exception):
                self._ray.cancel(task, force=True)
            raise


def _connect(address: str) -> tuple[ModuleType, bool]:
    """The `ray` module, connected, and whether this call connected it."""
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
            # For a cluster on the loopback, Ray would look for its node at the machine's outer address.
            _node_ip_address=address.partition(":")[0] if address.startswith("127.") else None,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise SandboxUnavailableError(
            f"No Ray cluster answers at {address or 'the address in RAY_ADDRESS'} ({error}): start one with "
            "`ray start --head`, and name its address in sandbox.ray_address."
        ) from error
    return ray, True


class _NodeSandbox(NamedTuple):
    """The sandbox that a node opens."""

    backend: str
    data_root: str
    docker: DockerSettings


# In each process that runs Ray tasks. It runs one task at a time.
_open_sandboxes: dict[_NodeSandbox, Sandbox] = {}


def _run_here(spec: _NodeSandbox, job: Job) -> Result:
    """The Ray task: runs on a node."""
    return _open_here(spec).run(job)


def _identify_here(spec: _NodeSandbox) -> Mapping[str, str]:
    return _open_here(spec).identity()


def _open_here(spec: _NodeSandbox) -> Sandbox:
    if spec not in _open_sandboxes:
        if spec.backend == "docker":
            from mlagent_jax.sandbox.docker import DockerSandbox  # Docker's client takes a while to import

            sandbox: Sandbox = DockerSandbox(Path(spec.data_root), workers=1, settings=spec.docker)
        else:
            sandbox = BubblewrapSandbox(Path(spec.data_root), workers=1)
        _open_sandboxes[spec] = sandbox
    return _open_sandboxes[spec]


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

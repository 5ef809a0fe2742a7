"""Several processes as one program: how they find each other, and how the first one shares its results."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Mapping
from typing import TypeVar

import jax
import numpy as np

from mlagent_jax.errors import UserError

T = TypeVar("T")

COORDINATOR, PROCESSES, PROCESS_ID = "MLAGENT_COORDINATOR", "MLAGENT_PROCESSES", "MLAGENT_PROCESS_ID"
_JOBSET_PORT = 8476


def initialize(
    coordinator: str = "",
    processes: int = 0,
    process_id: int = -1,
    environment: Mapping[str, str] = os.environ,
) -> str:
    """Joins the other processes of this run, if there are any. Call it before anything uses a device.

    It looks, in this order, at the arguments, at MLAGENT_COORDINATOR (host:port), MLAGENT_PROCESSES and
    MLAGENT_PROCESS_ID, at the variables of SLURM, of a TPU pod and of a GKE JobSet. It returns what it found:
    "explicit", "slurm", "tpu", "gke" or "single". Raises UserError where the values contradict each other or are
    incomplete.
    """
    coordinator = coordinator or environment.get(COORDINATOR, "")
    processes = processes or _integer(environment, PROCESSES, 0)
    process_id = process_id if process_id >= 0 else _integer(environment, PROCESS_ID, -1)
    if coordinator or processes or process_id >= 0:
        if not coordinator or processes < 1 or not 0 <= process_id < processes:
            raise UserError(
                f"coordinator {coordinator!r}, processes {processes} and process id {process_id} do not define "
                f"a run: all three are needed (or {COORDINATOR}, {PROCESSES}, {PROCESS_ID}), and "
                "0 <= id < processes"
            )
        if processes > 1:
            jax.distributed.initialize(coordinator, processes, process_id)
        return "explicit"
    if _integer(environment, "SLURM_NTASKS", 1) > 1 and "SLURM_PROCID" in environment:
        jax.distributed.initialize()  # JAX reads SLURM's variables itself
        return "slurm"
    if "," in environment.get("TPU_WORKER_HOSTNAMES", ""):
        jax.distributed.initialize()  # and those of a TPU pod
        return "tpu"
    if "JOBSET_NAME" in environment or _integer(environment, "NNODES", 1) > 1:
        return _join_jobset(environment)
    return "single"


def _join_jobset(environment: Mapping[str, str]) -> str:
    """Joins the pods of a JobSet's indexed job; they find the first pod by its name in the JobSet's DNS.

    Kubernetes sets JOB_COMPLETION_INDEX; the manifest sets the other variables, as xpk's manifests do. Unlike JAX's own
    start-up on Kubernetes, this does not query the cluster, so the pods need no permissions and no client.
    """
    needed = ("JOBSET_NAME", "REPLICATED_JOB_NAME", "NNODES", "JOB_COMPLETION_INDEX")
    missing = [name for name in needed if not environment.get(name)]
    if missing:
        raise UserError(
            f"this looks like a pod of a JobSet, but {', '.join(missing)} is not set; set the first three in the "
            "manifest's env, and completionMode: Indexed for the last"
        )
    processes, process_id = (
        _integer(environment, "NNODES", 0),
        _integer(environment, "JOB_COMPLETION_INDEX", -1),
    )
    if not 0 <= process_id < processes:
        raise UserError(
            f"JOB_COMPLETION_INDEX is {process_id} and NNODES {processes}, but the index must be below NNODES; "
            "set NNODES to the job's completions"
        )
    jobset, job = environment["JOBSET_NAME"], environment["REPLICATED_JOB_NAME"]
    if processes > 1:
        coordinator = f"{jobset}-{job}-0-0.{jobset}:{_JOBSET_PORT}"
        jax.distributed.initialize(coordinator, processes, process_id)
    return "gke"


def is_main() -> bool:
    """Whether this is the process that runs environments, writes files and logs."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Waits until every process has called this."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def broadcast(value: T) -> T:
    """The first process's `value`, on all processes. All must call this; the value must be picklable."""
    if jax.process_count() == 1:
        return value
    from jax.experimental import multihost_utils

    payload = pickle.dumps(value) if is_main() else b""
    size = int(multihost_utils.broadcast_one_to_all(np.int64(len(payload)).astype(np.int32)))
    buffer = np.zeros(size, np.uint8)
    if is_main():
        buffer[:] = np.frombuffer(payload, np.uint8)
    received: T = pickle.loads(np.asarray(multihost_utils.broadcast_one_to_all(buffer)).tobytes())
    return received


def on_main(work: Callable[[], T]) -> T:
    """Runs `work` on the first process only and returns its result on all of them.

    An exception there is raised on all processes, so that none waits for one that has stopped: the exception itself on
    the first process, RuntimeError with its text on the others.
    """
    if jax.process_count() == 1:
        return work()
    result: tuple[T | None, str] = (None, "")
    error: Exception | None = None
    if is_main():
        try:
            result = (work(), "")
        except Exception as caught:
            error, result = caught, (None, f"the first process failed: {caught!r}")
    value, failure = broadcast(result)
    if error is not None:
        raise error
    if failure:
        raise RuntimeError(failure)
    return value  # type: ignore[return-value]


def _integer(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name, "")
    try:
        return int(text) if text else default
    except ValueError:
        raise UserError(f"{name} is {text!r}, but must be a whole number") from None

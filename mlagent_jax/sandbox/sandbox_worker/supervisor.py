"""The trusted parent of one script: sets up its workspace, runs it, ends all its processes, and collects its files.

In a sandbox it is process 1 of the job's pid namespace, or of its container: the program cannot signal it, and
nothing that the program started outlives it. Without isolation it is a subreaper, which can lose descendants only to
a program that tries to escape.
"""

from __future__ import annotations

import dataclasses
import errno
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from . import container_state, namespaces, protocol, record, script, workspace
from .confinement import Confinement
from .container_state import ContainerState
from .execution import Execution
from .zygote import Zygote

_MAX_JOB_BYTES = 1 << 30


def serve(
    channel: protocol.Channel,
    confinement: Confinement,
    scratch: str = "",
    container: ContainerState | None = None,
) -> None:
    """Reads one job from `channel`, runs it and sends a report; or answers a ping. Raises OSError.

    Args:
        channel: to the host.
        confinement: of this process.
        scratch: without confinement, the folder for temporary folders.
        container: the state of the container, inside one.
    """
    # The kernel delivers to process 1 only the signals that it handles. Python's handler of SIGINT would be one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    job, files = protocol.receive(channel, _MAX_JOB_BYTES)
    if job.get("ping"):
        protocol.send(channel, job, {})
        return
    if confinement is Confinement.NAMESPACES:
        limits = job["limits"]
        namespaces.hide_from_siblings()
        paths = namespaces.mount_job_view(job["data"], limits["workspace_mb"], limits["workspace_files"])
        _run_job(paths, channel, job, files, confinement)
    elif container is not None:
        container.prepare()
        _run_job(container_state.PATHS, channel, job, files, confinement, container.zygote)
        # For the next job. If this fails, the container ends and is replaced.
        container.reset()
    else:
        if sys.platform == "linux":
            namespaces.become_subreaper()
        Path(scratch).mkdir(exist_ok=True)
        folder = tempfile.mkdtemp(dir=scratch)
        try:
            paths = namespaces.JobPaths(f"{folder}/workspace", f"{folder}/tmp")
            Path(paths.workspace).mkdir()
            Path(paths.temporary).mkdir()
            if job["data"]:
                shutil.copytree(job["data"], f"{paths.workspace}/data")
            _run_job(paths, channel, job, files, confinement)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _run_job(
    paths: namespaces.JobPaths,
    channel: protocol.Channel,
    job: dict[str, Any],
    files: dict[str, bytes],
    confinement: Confinement,
    zygote: Zygote | None = None,
) -> None:
    limits = job["limits"]
    try:
        workspace.write_files(paths.workspace, files)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        record.send(channel, record.Measurements(ran=False, disk_full=True))
        return
    execution = Execution(paths, channel, job, confinement, zygote)
    try:
        measured = execution.run()
    except script.PreparationError as error:
        record.send(channel, record.Measurements(ran=False, fault=str(error)))
        return
    collection = workspace.CollectionLimits(
        job["output"],
        # Half of the inodes and a quarter of the bytes, so that the next script has room whatever this one left.
        min(limits["kept_files"], limits["workspace_files"] // 2),
        min(limits["kept_mb"], limits["workspace_mb"] / 4),
        files.keys(),
    )
    collected: dict[str, bytes] = {}
    try:
        collected, left_out = workspace.collect_files(
            paths.workspace, limits["workspace_files"], limits["workspace_mb"] << 20, collection
        )
        measured = dataclasses.replace(measured, left_out=left_out)
    except workspace.TooMuchOutputError:
        measured = dataclasses.replace(measured, too_much_output=True)
    output = execution.output
    record.send(channel, measured, output.head, bytes(output.tail), collected)

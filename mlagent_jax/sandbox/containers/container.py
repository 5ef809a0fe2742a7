"""A container with the warm worker as its process 1, as seen from the host."""

from __future__ import annotations

import contextlib
import functools
import io
import struct
import time
import zipfile
from pathlib import Path
from typing import Any

import docker.errors
from absl import logging

from mlagent_jax.sandbox import sandbox_worker
from mlagent_jax.sandbox.containers import owner
from mlagent_jax.sandbox.containers.channel import AttachedChannel
from mlagent_jax.sandbox.containers.engine import Engine, EngineError
from mlagent_jax.sandbox.containers.policy import ContainerSpec, create_arguments
from mlagent_jax.sandbox.containers.settings import DockerSettings
from mlagent_jax.sandbox.pool import GRACE_SECONDS, START_SECONDS, WorkerError
from mlagent_jax.sandbox.sandbox_worker import protocol

# The worker's code is the first message: the image need not change with it, and remote engines need no mount.
# Size (8 bytes, big-endian), then a zip file.
_BOOTSTRAP = """
import os, struct, sys
def take(count):
    content = b""
    while len(content) < count:
        chunk = os.read(0, count - len(content))
        if not chunk:
            sys.exit(0)
        content += chunk
    return content
sys.path[0] = "/tmp/worker.zip"
with open(sys.path[0], "wb") as file:
    file.write(take(*struct.unpack(">Q", take(8))))
from sandbox_worker import server
os.unlink(sys.path[0])
server.main()
"""
_REMOVE_ATTEMPTS = 4
_PING_SECONDS = 5.0
_INSPECT_SECONDS = 3.0
_DEADLINE_GRACE_SECONDS = 60.0  # in which only the owner removes it


class Container:
    """Started by `start`, ended by `close`. Not thread-safe: whoever has borrowed it uses it alone.

    name: chosen before the first call to the engine, so that the container can be removed whatever a call returns.
    job_seconds: the time limit of the jobs that it was started for.
    jobs: how many it has received.
    has_successor: a container to take its place has been requested.
    exposed: what in it shows a job what an earlier one did, once it has started; see `sandbox_worker.exposure`.
    """

    def __init__(
        self, engine: Engine, name: str, spec: ContainerSpec, job_seconds: float, life_seconds: float
    ) -> None:
        self.engine = engine
        self.name = name
        self.spec = spec
        self._ends_at = time.monotonic() + life_seconds
        self.job_seconds = job_seconds
        self._life_seconds = life_seconds
        self.jobs = 0
        self.has_successor = False
        self.exposed: tuple[str, ...] = ()
        self._channel: AttachedChannel | None = None

    def start(self, settings: DockerSettings, number: int, preload: tuple[str, ...]) -> None:
        """Returns once the worker has imported its modules. Raises WorkerError; call `close` then."""
        life = int(self._life_seconds)
        command = ["python3", "-c", _BOOTSTRAP, "--container", "--seconds", str(life), "--preload", *preload]
        labels = owner.labels(life + _DEADLINE_GRACE_SECONDS)
        arguments = create_arguments(settings, self.spec, number, command, labels)
        self.engine.call(
            "create a container", lambda client: client.create_container(name=self.name, **arguments)
        )
        streams = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
        connection = self.engine.call(
            "attach to a container", lambda client: client.attach_socket(self.name, streams)
        )
        channel = self._channel = AttachedChannel(connection)
        self.engine.call("start a container", lambda client: client.start(self.name))
        try:
            channel.settimeout(START_SECONDS)
            channel.sendall(_worker_archive())
            self._await_response(channel, START_SECONDS)
            facts, _ = protocol.receive(channel, 0)
            self.exposed = tuple(map(str, facts["exposed"]))
        except (OSError, ValueError, KeyError, TypeError, EOFError, protocol.ProtocolError) as error:
            raise WorkerError(f"the worker in {self.name} did not start: {self._describe(error)}") from error

    def run(
        self, body: dict[str, Any], files: dict[str, bytes], wall_seconds: float, max_bytes: int
    ) -> protocol.Message:
        """Sends a job and waits for its report. Raises WorkerError; the container must not be used after that."""
        self.jobs += 1
        channel = self._channel  # another thread may close it and set it to None at any time
        if channel is None:
            raise WorkerError(f"{self.name} is not running")
        try:
            channel.settimeout(wall_seconds + GRACE_SECONDS)
            protocol.send(channel, body, files)
            self._await_response(channel, wall_seconds + GRACE_SECONDS)
            return protocol.receive(channel, max_bytes)
        except (OSError, ValueError, EOFError, protocol.ProtocolError) as error:
            raise WorkerError(f"{self.name} failed: {self._describe(error)}") from error

    @property
    def seconds_left(self) -> float:
        """The time until it ends by itself."""
        return self._ends_at - time.monotonic()

    def can_serve(self, wall_seconds: float) -> bool:
        """Whether its worker responds, and enough time is left for a job of this length.

        Pings the worker, because an engine may report the end of a container late.
        """
        channel = self._channel
        if channel is None or self.seconds_left < wall_seconds + GRACE_SECONDS:
            return False
        try:
            channel.settimeout(_PING_SECONDS)
            protocol.send(channel, {"ping": True}, {})
            protocol.receive(channel, 0)
        except (OSError, ValueError, EOFError, protocol.ProtocolError):
            return False
        return True

    def _await_response(self, channel: AttachedChannel, seconds: float) -> None:
        """Returns when there is something to read. Raises EOFError, TimeoutError, OSError, ValueError.

        Inspects the container periodically: an engine may leave the connection open after the container has ended.
        """
        deadline = time.monotonic() + seconds
        while not channel.poll(_INSPECT_SECONDS):
            if time.monotonic() > deadline:
                raise TimeoutError(f"no response in {seconds:g} s")
            with contextlib.suppress(EngineError):  # it may be restarting, which does not end its containers
                state = self.engine.call("inspect a container", self._inspect)["State"]
                if not state["Running"] and state["Status"] != "created":
                    raise EOFError(f"the container has ended ({state['Status']})")

    def _inspect(self, client: Any) -> dict[str, Any]:
        try:
            return client.inspect_container(self.name)
        except docker.errors.NotFound:  # the engine removes containers that have ended
            return {"State": {"Running": False, "Status": "removed"}}

    def close(self) -> None:
        """Ends and removes it. If that fails, it ends at its deadline, and the reaper removes it."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        for attempt in range(_REMOVE_ATTEMPTS):
            try:
                self.engine.call("remove a container", functools.partial(remove, name=self.name))
                return
            except EngineError as error:
                if error.missing:
                    return
                reason = str(error)
            time.sleep(0.2 * 2**attempt)
        logging.warning(
            "%s could not be removed; it ends at its deadline, and `experiments.sandbox gc` removes it: %s",
            self.name,
            reason,
        )

    def _describe(self, error: Exception) -> str:
        """The error with the last line of the worker's standard error."""
        reason = str(error) or type(error).__name__
        stderr = self._channel.stderr if self._channel else b""
        errors = stderr.decode("utf-8", "backslashreplace").strip()
        return f"{reason}; the worker's last error: {errors.splitlines()[-1].strip()}" if errors else reason


def remove(client: Any, name: str) -> None:
    """Removes a container by force. Succeeds too if it is gone, or the engine is removing it already."""
    with contextlib.suppress(docker.errors.NotFound):
        try:
            client.remove_container(name, force=True, v=True)
        except docker.errors.APIError as error:
            if error.status_code != 409:  # "removal is already in progress"
                raise


@functools.cache
def _worker_archive() -> bytes:
    content = io.BytesIO()
    folder = Path(sandbox_worker.__file__).parent
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.glob("*.py")):
            archive.write(path, f"{folder.name}/{path.name}")
    return struct.pack(">Q", len(content.getvalue())) + content.getvalue()

"""One container with the warm worker as its process 1, as seen from the host."""

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
from mlagent_jax.sandbox.containers.policy import Shape, container_arguments
from mlagent_jax.sandbox.containers.settings import DockerSettings
from mlagent_jax.sandbox.pool import GRACE_SECONDS, READY_SECONDS, WorkerError
from mlagent_jax.sandbox.sandbox_worker import protocol

# The worker comes with the first message, so that an image outlives changes to it and engines far away need no
# mount. Size (8 bytes, big-endian), then a zip file.
_BOOT = """
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
_ANSWER_SECONDS = 5.0  # of a worker that waits for a job
_LOOK_SECONDS = 3.0
_DEADLINE_GRACE_SECONDS = 60.0  # for a removal by its owner, before others may


class Container:
    """Started by `start`, ended by `close`. Not thread-safe: whoever holds its lease uses it alone.

    job_seconds: the time limit of the jobs that it was started for.
    jobs: how many it has been given. is_replaced: one that is to take its place has been asked for.
    exposed: what in it shows a job what an earlier one did, once it has started; see `sandbox_worker.exposure`.
    name: known before the engine is asked for anything, so that whatever becomes of a call, it can be removed.
    """

    def __init__(
        self, engine: Engine, name: str, shape: Shape, job_seconds: float, life_seconds: float
    ) -> None:
        self.engine = engine
        self.name = name
        self.shape = shape
        self._ends_at = time.monotonic() + life_seconds
        self.job_seconds = job_seconds
        self._life_seconds = life_seconds
        self.jobs = 0
        self.is_replaced = False
        self.exposed: tuple[str, ...] = ()
        self._channel: AttachedChannel | None = None

    def start(self, settings: DockerSettings, number: int, preload: tuple[str, ...]) -> None:
        """Returns once the worker has imported its modules. Raises WorkerError; `close` it then."""
        life = int(self._life_seconds)
        command = ["python3", "-c", _BOOT, "--container", "--seconds", str(life), "--preload", *preload]
        labels = owner.labels(life + _DEADLINE_GRACE_SECONDS)
        arguments = container_arguments(settings, self.shape, number, command, labels)
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
            channel.settimeout(READY_SECONDS)
            channel.sendall(_worker_archive())
            self._await_answer(channel, READY_SECONDS)
            facts, _ = protocol.receive(channel, 0)
            self.exposed = tuple(map(str, facts["exposed"]))
        except (OSError, ValueError, KeyError, TypeError, EOFError, protocol.ProtocolError) as error:
            raise WorkerError(f"the worker in {self.name} did not start: {self._reason(error)}") from error

    def run(
        self, body: dict[str, Any], files: dict[str, bytes], wall_seconds: float, max_bytes: int
    ) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Sends a job and waits for its answer. Raises WorkerError; the container is of no use after that."""
        self.jobs += 1
        channel = self._channel  # which another thread may close, and forget, at any time
        if channel is None:
            raise WorkerError(f"{self.name} is not running")
        try:
            channel.settimeout(wall_seconds + GRACE_SECONDS)
            protocol.send(channel, body, files)
            self._await_answer(channel, wall_seconds + GRACE_SECONDS)
            return protocol.receive(channel, max_bytes)
        except (OSError, ValueError, EOFError, protocol.ProtocolError) as error:
            raise WorkerError(f"{self.name} failed: {self._reason(error)}") from error

    @property
    def seconds_left(self) -> float:
        """Until it ends by itself."""
        return self._ends_at - time.monotonic()

    def can_serve(self, wall_seconds: float) -> bool:
        """Whether its worker answers, and it will be there for a job of so many seconds.

        Asked, because an engine may be slow to say that a container is no more.
        """
        channel = self._channel
        if channel is None or self.seconds_left < wall_seconds + GRACE_SECONDS:
            return False
        try:
            channel.settimeout(_ANSWER_SECONDS)
            protocol.send(channel, {"ping": True}, {})
            protocol.receive(channel, 0)
        except (OSError, ValueError, EOFError, protocol.ProtocolError):
            return False
        return True

    def _await_answer(self, channel: AttachedChannel, seconds: float) -> None:
        """Returns when there is something to read. Raises EOFError, TimeoutError, OSError, ValueError.

        Looks after the container now and then: an engine may leave the connection of one open that is no more.
        """
        give_up = time.monotonic() + seconds
        while not channel.has_input(_LOOK_SECONDS):
            if time.monotonic() > give_up:
                raise TimeoutError(f"no answer in {seconds:g} s")
            with contextlib.suppress(EngineError):  # one that is being restarted has not ended its containers
                state = self.engine.call("look after a container", self._inspect)["State"]
                if not state["Running"] and state["Status"] != "created":
                    raise EOFError(f"the container has ended ({state['Status']})")

    def _inspect(self, client: Any) -> dict[str, Any]:
        try:
            return client.inspect_container(self.name)
        except docker.errors.NotFound:  # they remove themselves
            return {"State": {"Running": False, "Status": "removed"}}

    def close(self) -> None:
        """Ends and removes it. One that cannot be removed now is left to its deadline and the reaper."""
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
        logging.warning("%s is left to its deadline and to `experiments.sandbox gc`: %s", self.name, reason)

    def _reason(self, error: Exception) -> str:
        """With what the worker said last."""
        reason = str(error) or type(error).__name__
        errors = self._channel.errors if self._channel else b""
        words = errors.decode("utf-8", "backslashreplace").strip()
        return f"{reason}; the worker's last words: {words.splitlines()[-1].strip()}" if words else reason


def remove(client: Any, name: str) -> None:
    """Removes by force; that the engine is removing it already is as good."""
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

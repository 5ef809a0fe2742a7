"""A Docker engine by its address. No call waits for longer than its deadline, and few wait at once."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import docker
import requests
from docker.errors import APIError, DockerException, NotFound

from mlagent_jax.sandbox.breaker import CircuitBreaker
from mlagent_jax.sandbox.pool import WorkerError

_T = TypeVar("_T")


class EngineError(WorkerError):
    """The engine did not do what it was asked for.

    missing: there is no such image or container. is_refusal: it is well, and will say the same again.
    """

    def __init__(self, message: str, missing: bool = False, is_refusal: bool = False) -> None:
        super().__init__(message)
        self.missing = missing
        self.is_refusal = is_refusal


class Engine:
    """One engine. Thread-safe; close it.

    Attributes:
        address: as DOCKER_HOST has it, or "" for what the environment names.
        breaker: opened by calls that fail in a row.
    """

    def __init__(self, address: str, call_seconds: float, calls: int) -> None:
        self.address = address
        self.breaker = CircuitBreaker(rest_seconds=2.0)
        self._seconds = call_seconds
        # The SDK's own timeout is for each read; a thread can be left behind at any time.
        self._threads = ThreadPoolExecutor(calls, thread_name_prefix="docker-call")
        self._local = threading.local()
        self._clients: list[docker.APIClient] = []

    @property
    def label(self) -> str:
        """How to name this engine to a person."""
        return self.address or docker.utils.kwargs_from_env().get("base_url") or "unix:///var/run/docker.sock"

    def call(self, what: str, function: Callable[[Any], _T]) -> _T:
        """Calls `function` with a client of the engine's interface. Raises EngineError.

        Args:
            what: for the message: "the engine could not <what>".
        """
        try:
            future = self._threads.submit(self._apply, function)
        except RuntimeError as error:
            raise EngineError("the sandbox is closed") from error
        try:
            result = future.result(self._seconds)
        except TimeoutError:
            future.cancel()
            self.breaker.record(False)
            raise EngineError(f"{self.label} took more than {self._seconds:g} s to {what}") from None
        except (DockerException, requests.RequestException, OSError) as error:
            is_refusal = isinstance(error, APIError) and error.is_client_error()
            self.breaker.record(is_refusal)
            raise EngineError(
                f"{self.label} could not {what}: {_reason(error)}", isinstance(error, NotFound), is_refusal
            ) from error
        self.breaker.record(True)
        return result

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        for client in self._clients:
            with contextlib.suppress(Exception):
                client.close()

    def _apply(self, function: Callable[[Any], _T]) -> _T:
        client = getattr(self._local, "client", None)
        if client is None:
            client = connect(self.address, self._seconds)
            self._local.client = client
            self._clients.append(client)
        return function(client)


def connect(address: str, seconds: float) -> docker.APIClient:
    """A client of the engine at `address`. Raises DockerException."""
    options = docker.utils.kwargs_from_env()
    if address:
        options["base_url"] = address
    try:
        return docker.APIClient(version="auto", timeout=seconds, **options)
    except ValueError as error:  # of the library that takes addresses apart
        raise DockerException(f"Invalid bind address {address!r}: {error}") from error


def _reason(error: Exception) -> str:
    """What the engine says; else what the system says that kept us from it, without the layers in between."""
    explanation = getattr(error, "explanation", None)
    if explanation is None and (cause := _system_error(error)) is not None:
        return str(cause.strerror)
    return str(explanation or error).strip().splitlines()[-1] if str(error) else type(error).__name__


def _system_error(error: BaseException) -> OSError | None:
    """The first error of the system among an error's causes, which are also kept as arguments and reasons."""
    waiting, seen = [error], set[int]()
    while waiting:
        found = waiting.pop(0)
        if id(found) in seen:
            continue
        seen.add(id(found))
        if isinstance(found, OSError) and found.strerror:
            return found
        causes = (found.__cause__, found.__context__, getattr(found, "reason", None), *found.args)
        waiting += [cause for cause in causes if isinstance(cause, BaseException)]
    return None

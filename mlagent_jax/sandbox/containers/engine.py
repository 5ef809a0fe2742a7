"""A Docker engine. Every call has a deadline, and the number of concurrent calls is limited."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import docker
import requests
from docker.errors import APIError, DockerException, NotFound

from mlagent_jax.sandbox.circuit_breaker import CircuitBreaker
from mlagent_jax.sandbox.pool import WorkerError

_T = TypeVar("_T")


class EngineError(WorkerError):
    """A call to the engine failed.

    missing: there is no such image or container.
    is_refusal: the engine works, and would give the same answer again.
    """

    def __init__(self, message: str, missing: bool = False, is_refusal: bool = False) -> None:
        super().__init__(message)
        self.missing = missing
        self.is_refusal = is_refusal


class Engine:
    """One engine. Thread-safe. Close it after use.

    Attributes:
        address: in the form of DOCKER_HOST, or "" for the one that the environment names.
        breaker: opens after several failed calls in a row.
    """

    def __init__(self, address: str, call_seconds: float, max_calls: int) -> None:
        """`call_seconds`: deadline of each call. `max_calls`: how many may be in progress at once."""
        self.address = address
        self.breaker = CircuitBreaker(reset_seconds=2.0)
        self._seconds = call_seconds
        # The SDK's own timeout only applies to each read. A call in a thread can be abandoned at any time.
        self._threads = ThreadPoolExecutor(max_calls, thread_name_prefix="docker-call")
        self._local = threading.local()
        self._clients: list[docker.APIClient] = []

    @property
    def label(self) -> str:
        """The engine's name in messages."""
        return self.address or docker.utils.kwargs_from_env().get("base_url") or "unix:///var/run/docker.sock"

    def call(self, action: str, function: Callable[[Any], _T]) -> _T:
        """Calls `function` with a client of the engine's API. Raises EngineError.

        Args:
            action: for the message: "the engine could not <action>".
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
            raise EngineError(f"{self.label} took more than {self._seconds:g} s to {action}") from None
        except (DockerException, requests.RequestException, OSError) as error:
            is_refusal = isinstance(error, APIError) and error.is_client_error()
            self.breaker.record(is_refusal)
            raise EngineError(
                f"{self.label} could not {action}: {_reason(error)}", isinstance(error, NotFound), is_refusal
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
    except ValueError as error:  # from the library that parses addresses
        raise DockerException(f"Invalid bind address {address!r}: {error}") from error


def _reason(error: Exception) -> str:
    """The engine's own message, or the system's error that prevented the call, without the layers in between."""
    explanation = getattr(error, "explanation", None)
    if explanation is None and (cause := _system_error(error)) is not None:
        return str(cause.strerror)
    return str(explanation or error).strip().splitlines()[-1] if str(error) else type(error).__name__


def _system_error(error: BaseException) -> OSError | None:
    """The first system error among an error's causes. Libraries also keep causes as arguments and reasons."""
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

"""A small model on this machine, served by llama.cpp: an endpoint whose server the run starts and ends itself."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

from mlagent_jax.llm.backend import Answer, ChatRequest, ModelUnavailableError
from mlagent_jax.llm.config import ENDPOINT, ModelConfig
from mlagent_jax.llm.endpoint import Endpoint, check_client
from mlagent_jax.llm.local_server import LocalServer

_TOKEN_SECONDS = 1.0  # a slow machine's; given up and asked again, a model would be as slow


class Local:
    """Implements `Backend`. The server is started at the first request.

    server: of the model, which other roles may share. Raises ModelError if the client of endpoints is not installed.
    """

    def __init__(self, role: str, config: ModelConfig, server: LocalServer) -> None:
        check_client(role)
        self._role = role
        self._config = config
        self._server = server
        self._connecting = threading.Lock()
        self._endpoint: Endpoint | None = None

    def fetch(self) -> None:
        """Fetches the weights, unless they are there. Raises ModelError."""
        self._server.fetch()

    def ask(self, request: ChatRequest, abandoned: Callable[[], None] = lambda: None) -> Answer:
        """See `Backend.ask`. Requests of all roles wait here, so that none waits for its answer in the server."""
        endpoint = self._connected()

        def broken() -> None:
            self._server.check_alive()  # it answers no further request
            abandoned()

        with self._server.slots:
            try:
                return endpoint.ask(request, broken)
            except ModelUnavailableError:
                self._server.check_alive()
                raise

    def close(self) -> None:
        if self._endpoint is not None:
            self._endpoint.close()

    def _connected(self) -> Endpoint:
        with self._connecting:
            if self._endpoint is None:
                config = replace(
                    self._config,
                    backend=ENDPOINT,
                    base_url=self._server.address(),
                    timeout_seconds=max(
                        self._config.timeout_seconds, self._config.max_tokens * _TOKEN_SECONDS
                    ),
                    token_limit="max_tokens",
                    api_key_variable="",
                )
                self._endpoint = Endpoint(self._role, config)
            return self._endpoint

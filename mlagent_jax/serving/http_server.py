"""The HTTP server: listens, and shuts down without leaving a request unanswered."""

from __future__ import annotations

import socket

import uvicorn

from mlagent_jax.serving.app import Server

SHUTDOWN_SECONDS = 5.0  # that running requests get to finish when the server is told to stop
_ERROR_SECONDS = 5  # to send errors to those that have not finished by then


class HttpServer(uvicorn.Server):
    """Accepts no connections after SIGTERM or an interrupt.

    Requests that are still running after SHUTDOWN_SECONDS end with an error.
    """

    def __init__(self, server: Server, model: str, host: str, port: int):
        super().__init__(
            uvicorn.Config(
                server.app,
                host=host,
                port=port,
                log_config=None,  # uvicorn's own would close the existing handlers
                log_level="warning",
                timeout_graceful_shutdown=int(SHUTDOWN_SECONDS) + _ERROR_SECONDS,
            )
        )
        self._server, self._model = server, model

    @property
    def port(self) -> int:
        """The port that it listens on, once `started`."""
        port: int = self.servers[0].sockets[0].getsockname()[1]
        return port

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
            print(f"serving {self._model!r} on http://{host}:{self.port}/v1", flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._server.close_after(SHUTDOWN_SECONDS)
        await super().shutdown(sockets)

"""Listening: from the first request to a shutdown that leaves none without an end."""

from __future__ import annotations

import socket

import uvicorn

from mlagent_jax.serving.app import Server

GRACE = 5.0  # seconds that answers under way have when the server is told to stop
_FAREWELL = 5  # seconds that are left then for errors to be sent


class HttpServer(uvicorn.Server):
    """On SIGTERM or an interrupt it takes no more connections; answers that are not done in GRACE end with an error."""

    def __init__(self, server: Server, model: str, host: str, port: int):
        super().__init__(
            uvicorn.Config(
                server.app,
                host=host,
                port=port,
                log_config=None,  # its own would close the handlers that there are
                log_level="warning",
                timeout_graceful_shutdown=int(GRACE) + _FAREWELL,
            )
        )
        self._server, self._model = server, model

    @property
    def port(self) -> int:
        """That it listens on, once `started`."""
        port: int = self.servers[0].sockets[0].getsockname()[1]
        return port

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
            print(f"serving {self._model!r} on http://{host}:{self.port}/v1", flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._server.close_within(GRACE)
        await super().shutdown(sockets)

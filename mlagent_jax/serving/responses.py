"""What goes out over HTTP: JSON that is JSON, and events that end with an error where the answer does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from absl import logging
from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from mlagent_jax.serving.errors import ApiError


class Json(Response):
    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False).encode()


def error_response(error: ApiError) -> Response:
    return Json(error.body, error.status, error.headers)


class Events(StreamingResponse):
    """Server-sent events. ended(complete): called once, however it ends, even before the first of them.

    patience: seconds for which a client may leave what is sent unread.
    """

    def __init__(self, events: AsyncIterator[str], ended: Callable[[bool], None], patience: float):
        super().__init__(
            self._to_the_end(events), media_type="text/event-stream", headers={"Cache-Control": "no-cache"}
        )
        self._ended, self._patience = ended, patience
        self._complete = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_soon(message: Message) -> None:
            async with asyncio.timeout(self._patience):
                await send(message)

        try:
            await super().__call__(scope, receive, send_soon)
        except TimeoutError:
            logging.info(
                "A client left a stream unread."
            )  # it is disconnected, as the answer is not complete
        finally:
            self._ended(self._complete)

    async def _to_the_end(self, events: AsyncIterator[str]) -> AsyncIterator[str]:
        async for event in events:
            yield event
        self._complete = True


def event(content: Any) -> str:
    return f"data: {json.dumps(content, allow_nan=False)}\n\n"

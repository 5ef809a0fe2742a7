"""Event streams to clients that do not read, have disconnected, or fail."""

import asyncio

import pytest

from mlagent_jax.serving.responses import EventStream

SCOPE = {"type": "http", "asgi": {"spec_version": "2.3"}}


def run(send, receive=None, client_timeout=0.05):
    """Sends a stream. Returns whether all of it was sent, which must be reported exactly once."""
    ended = []

    async def never():
        await asyncio.Event().wait()

    async def generate():
        for number in range(3):
            yield f"data: {number}\n\n"

    asyncio.run(EventStream(generate(), ended.append, client_timeout)(SCOPE, receive or never, send))
    (complete,) = ended
    return complete


def test_a_client_that_does_not_read_is_disconnected():
    async def send(message):
        if message.get("body"):
            await asyncio.Event().wait()

    assert not run(send)


def test_a_client_that_disconnects_before_the_first_event():
    async def gone():
        return {"type": "http.disconnect"}

    async def send(message):
        await asyncio.sleep(0)

    assert not run(send, gone)


def test_a_stream_that_is_read():
    sent = []

    async def send(message):
        sent.append(message)

    assert run(send)
    assert b"".join(message.get("body", b"") for message in sent) == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"


def test_a_connection_that_breaks():
    async def send(message):
        raise OSError("broken pipe")

    with pytest.raises(OSError, match="broken pipe"):
        run(send)

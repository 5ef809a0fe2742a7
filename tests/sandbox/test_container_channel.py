"""The stream of an attached container, the circuit breaker, and the owner of a container."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlagent_jax.sandbox.circuit_breaker import CircuitBreaker
from mlagent_jax.sandbox.containers import owner
from mlagent_jax.sandbox.containers.channel import AttachedChannel
from mlagent_jax.sandbox.containers.container import Container
from mlagent_jax.sandbox.containers.policy import ContainerSpec
from mlagent_jax.sandbox.interface import Limits
from mlagent_jax.sandbox.pool import WorkerError


@given(
    frames=st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=40)), max_size=12),
    cuts=st.lists(st.integers(1, 20), min_size=1, max_size=8),
    count=st.integers(1, 30),
)
def test_demultiplexes_frames_however_they_are_split(
    frames: list[tuple[int, bytes]], cuts: list[int], count: int
) -> None:
    stream = b"".join(struct.pack(">BxxxL", kind, len(content)) + content for kind, content in frames)
    channel = AttachedChannel(_Trickle(stream, cuts))
    received = b""
    while chunk := channel.recv(count):
        assert len(chunk) <= count
        received += chunk
    assert received == b"".join(content for kind, content in frames if kind == 1)
    assert channel.stderr == b"".join(content for kind, content in frames if kind == 2)


class _Trickle:
    """A connection that returns a few bytes at a time."""

    def __init__(self, content: bytes, cuts: list[int]) -> None:
        self._content = content
        self._cuts = cuts
        self._turn = 0

    def recv(self, count: int) -> bytes:
        size = min(count, self._cuts[self._turn % len(self._cuts)])
        self._turn += 1
        chunk, self._content = self._content[:size], self._content[size:]
        return chunk


def test_sees_the_end_of_a_connection() -> None:
    ours, theirs = socket.socketpair()
    channel = AttachedChannel(ours)
    theirs.sendall(struct.pack(">BxxxL", 1, 1) + b"x")
    assert channel.recv(5) == b"x"
    theirs.close()
    assert channel.recv(5) == b""
    channel.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        channel.recv(5)


def test_detects_a_container_that_has_ended_although_its_connection_is_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Real engines do that sometimes. This one is a fake."""

    class Engine:
        def call(self, action: str, function: object) -> dict[str, dict[str, object]]:
            return {"State": {"Running": False, "Status": "exited"}}

    monkeypatch.setattr("mlagent_jax.sandbox.containers.container._INSPECT_SECONDS", 0.05)
    ours, theirs = socket.socketpair()
    lost = Container(Engine(), "lost", ContainerSpec.from_limits(Limits(), "", ""), 1, 60)  # type: ignore[arg-type]
    lost._channel = AttachedChannel(ours)
    with pytest.raises(WorkerError, match=r"lost failed: the container has ended \(exited\)"):
        lost.run({}, {}, 3600, 0)
    theirs.close()
    assert not lost.can_serve(1)


def test_breaker_opens_lets_one_try_through_and_closes() -> None:
    now = 0.0
    breaker = CircuitBreaker(max_failures=3, reset_seconds=10, clock=lambda: now)
    for _ in range(2):
        breaker.record(False)
    breaker.record(True)
    for _ in range(3):
        assert breaker.allows_try()
        breaker.record(False)
    assert breaker.is_open
    assert not breaker.allows_try()
    now = 10.0
    assert [breaker.allows_try(), breaker.allows_try()] == [True, False]
    breaker.record(False)
    assert not breaker.allows_try()
    now = 20.0
    assert breaker.allows_try()
    breaker.record(True)
    assert [breaker.allows_try(), breaker.allows_try()] == [True, True]


@pytest.mark.parametrize(
    ("changes", "now", "abandoned"),
    [
        ({}, None, False),
        ({}, 1e12, True),
        ({"owner": "another-boot/1/1/1"}, None, False),
        # An earlier process with our pid.
        ({"owner": owner.process_identity().rpartition("/")[0] + "/1"}, None, True),
        ({"owner": "/".join([*owner.process_identity().split("/")[:2], "4194304", "1"])}, None, True),
        ({"owner": "nonsense"}, None, False),
        ({"deadline": "soon"}, None, False),
    ],
)
def test_recognizes_dead_owners(changes: dict[str, str], now: float | None, abandoned: bool) -> None:
    labels = owner.labels(60) | {f"{owner.APP}.{key}": value for key, value in changes.items()}
    assert owner.is_abandoned(labels, now) is abandoned
    assert not owner.is_abandoned({key: value for key, value in labels.items() if key != owner.APP}, now)

"""How the measurements of an execution become a status, and its output bytes clean text."""

from __future__ import annotations

import dataclasses
import signal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlagent_jax.sandbox.interface import Limits, Status
from mlagent_jax.sandbox.outcome import clean_text, decide_status, render_output, to_result
from mlagent_jax.sandbox.sandbox_worker.protocol import ProtocolError
from mlagent_jax.sandbox.sandbox_worker.record import LeftOut, Measurements, decode

LIMITS = Limits(cpu_seconds=10, processes=8)
QUIET: dict[str, Any] = dataclasses.asdict(Measurements(ran=True, exit_code=0, cpu_seconds=0.1))
SIGNALLED: dict[str, Any] = {"exit_code": None}


@pytest.mark.parametrize(
    ("measured", "status"),
    [
        ({}, Status.OK),
        ({"exit_code": 1}, Status.FAILED),
        # A refusal counts if the script then failed in any way.
        ({"exit_code": 0, "refused_bytes": 1 << 40}, Status.OK),
        ({"exit_code": 1, "refused_bytes": 1 << 40}, Status.OOM),
        ({**SIGNALLED, "signal": signal.SIGABRT, "refused_bytes": 1 << 20}, Status.OOM),
        ({"exit_code": 0, "refused_processes": 1}, Status.OK),
        ({"exit_code": 3, "refused_processes": 1}, Status.PIDS),
        ({"exit_code": 1, "disk_full": True}, Status.DISK),
        ({"exit_code": 0, "disk_full": True}, Status.OK),
        ({**SIGNALLED, "signal": signal.SIGSEGV}, Status.FAILED),
        ({**SIGNALLED, "signal": signal.SIGKILL}, Status.FAILED),  # sent by itself
        ({**SIGNALLED, "signal": signal.SIGKILL, "kernel_oom_kills": 1}, Status.OOM),
        (
            {**SIGNALLED, "signal": signal.SIGSEGV, "kernel_oom_kills": 1},
            Status.FAILED,
        ),  # perhaps of another job
        ({"exit_code": 1, "kernel_oom_kills": 1, "own_oom_kills": 1}, Status.OOM),  # its own child
        ({**SIGNALLED, "signal": signal.SIGKILL, "script_cpu_seconds": 10.0}, Status.TIMEOUT),
        ({**SIGNALLED, "signal": signal.SIGKILL, "cpu_seconds": 10.0}, Status.FAILED),  # of its orphans
        ({**SIGNALLED, "signal": signal.SIGXCPU, "script_cpu_seconds": 0.1}, Status.FAILED),
        ({**SIGNALLED, "signal": signal.SIGXFSZ}, Status.FAILED),  # any process can send it
        ({**SIGNALLED, "signal": signal.SIGXFSZ, "disk_full": True}, Status.DISK),
        ({**SIGNALLED, "killed_for": "time", "signal": 9, "refused_bytes": 1}, Status.TIMEOUT),
        ({**SIGNALLED, "killed_for": "memory", "signal": 9}, Status.OOM),
        ({**SIGNALLED, "killed_for": "processes", "signal": 9}, Status.PIDS),
        ({**SIGNALLED, "killed_for": "disk", "signal": 9}, Status.DISK),
        ({"too_much_output": True}, Status.OUTPUT_LIMIT),
        ({"too_much_output": True, "exit_code": 1}, Status.OUTPUT_LIMIT),
        ({"too_much_output": True, "exit_code": 1, "refused_bytes": 1}, Status.OOM),
    ],
)
def test_status(measured: dict[str, Any], status: Status) -> None:
    assert decide_status(Measurements(**QUIET | measured), LIMITS) is status


@pytest.mark.parametrize(
    "printed",
    [
        b"MemoryError\n",
        b"RuntimeError: can't start new thread\n",
        b"OSError: [Errno 28] No space left on device\n",
    ],
)
def test_what_a_script_prints_has_no_effect_on_its_status(printed: bytes) -> None:
    result = to_result(QUIET | {"exit_code": 1}, {"head": printed, "tail": b""}, LIMITS)
    assert (result.status, result.output) == (Status.FAILED, printed.decode())


def test_oom_kills_of_children_are_recorded_even_if_the_script_succeeds() -> None:
    result = to_result(QUIET | {"own_oom_kills": 2}, {"head": b"", "tail": b""}, LIMITS)
    assert (result.status, result.oom_kills) == (Status.OK, 2)


def test_a_failure_before_the_first_line_is_a_sandbox_error() -> None:
    body = dataclasses.asdict(Measurements(ran=False, fault="no room"))
    result = to_result(body, {"head": b"", "tail": b""}, LIMITS)
    assert (result.status, result.error) == (Status.SANDBOX_ERROR, "no room")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ran": 1}, "ran"),
        ({"exit_code": True}, "exit_code"),
        ({"exit_code": 256}, "exit_code"),
        ({"exit_code": -1}, "exit_code"),
        ({"exit_code": None}, "either an exit_code or a signal"),
        ({"signal": 9}, "either an exit_code or a signal"),
        ({"ran": False}, "either an exit_code or a signal"),
        ({"killed_for": "fun"}, "killed_for"),
        ({"wall_seconds": float("nan")}, "wall_seconds"),
        ({"peak_memory_mb": float("inf")}, "peak_memory_mb"),
        ({"cpu_seconds": "1"}, "cpu_seconds"),
        ({"dropped_bytes": -1}, "dropped_bytes"),
        ({"refused_bytes": 1.5}, "refused_bytes"),
        ({"disk_full": None}, "disk_full"),
        ({"left_out": {"charm": 1}}, "left_out"),
        ({"left_out": {"name": -1}}, "name"),
        ({"left_out": [1]}, "left_out"),
        ({"fault": b""}, "fault"),
        ({"status": "ok"}, "status"),
    ],
)
def test_an_invalid_record_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        decode(QUIET | changes, {"head": b"", "tail": b""})


def test_a_report_without_output_or_with_unknown_parts_is_refused() -> None:
    for blobs in ({}, {"head": b""}, {"head": b"", "tail": b"", "more": b""}):
        with pytest.raises(ProtocolError):
            decode(QUIET, blobs)
    with pytest.raises(ProtocolError, match="below another"):
        decode(QUIET, {"head": b"", "tail": b"", "file/a": b"", "file/a/b": b""})


def test_a_name_that_only_the_worker_can_print_is_left_out_and_counted() -> None:
    blobs = {"head": b"", "tail": b"", "file/\U000e0fff": b"x", "file/a": b"y"}
    record, _, _, files = decode(QUIET | {"left_out": {"name": 2}}, blobs)
    assert (files, record.left_out) == ({"a": b"y"}, {LeftOut.NAME: 3})


@given(st.binary(max_size=3000), st.integers(200, 1000))
def test_output_is_bounded_and_harmless(raw: bytes, limit: int) -> None:
    head, tail = raw[: limit // 2], raw[limit // 2 :][-(limit - limit // 2) :]
    text, dropped = render_output(head, tail, len(raw) - len(head) - len(tail), limit)
    assert len(text.encode()) <= limit
    assert all(letter.isprintable() or letter in "\n\t" for letter in clean_text(text) if ord(letter) < 0x80)
    assert clean_text(text) == text
    assert dropped >= len(raw) - len(head) - len(tail)


@given(st.text(st.characters(categories=["L", "N", "P", "Zs"]), max_size=200))
def test_plain_text_is_kept(text: str) -> None:
    assert render_output(text.encode(), b"", 0, 10_000) == (text, 0)


def test_a_character_that_is_split_between_head_and_tail_survives() -> None:
    assert render_output("né".encode()[:2], "né".encode()[2:], 0, 100) == ("né", 0)


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;a title\x07text", "text"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("50%\r100%\r\nnext", "50%\n100%\nnext"),
        ("a\x00b\x08c\x7f", "abc"),
        ("right\u202eleft\u2066\u200b\ufeff", "rightleft"),
        ("tag\U000e0041", "tag"),
        ("tab\tstays, \u2603 too", "tab\tstays, \u2603 too"),
    ],
)
def test_clean_text(raw: str, clean: str) -> None:
    assert clean_text(raw) == clean

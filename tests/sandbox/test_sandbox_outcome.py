"""How an execution's facts become a status, and its bytes a clean text."""

from __future__ import annotations

import signal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlagent_jax.sandbox.interface import Limits, Status
from mlagent_jax.sandbox.outcome import clean_text, decide_status, render_output, to_result

LIMITS = Limits(cpu_seconds=10, processes=8)
QUIET: dict[str, Any] = {
    "ran": True,
    "killed_for": "",
    "exit_code": 0,
    "signal": None,
    "cpu_seconds": 0.1,
    "kernel_oom_kills": 0,
    "own_oom_kills": 0,
    "disk_full": False,
    "most_processes": 1,
}


@pytest.mark.parametrize(
    ("facts", "last_line", "status"),
    [
        ({}, "done", Status.OK),
        ({}, "MemoryError", Status.OK),  # caught, or only printed
        ({"exit_code": 2}, "MemoryError", Status.FAILED),  # an uncaught exception ends with 1
        ({"exit_code": 1}, "ValueError: MemoryError", Status.FAILED),
        ({"exit_code": 1}, "MemoryError", Status.OOM),
        ({"exit_code": 1}, "MemoryError: no room", Status.OOM),
        ({"exit_code": 1}, "numpy._core._exceptions._ArrayMemoryError: Unable to allocate", Status.OOM),
        ({"exit_code": 1}, "OSError: [Errno 28] No space left on device: 'x'", Status.DISK),
        ({"exit_code": 1}, "OSError: [Errno 27] File too large", Status.DISK),
        ({"exit_code": 1}, "OSError: [Errno 2] No such file", Status.FAILED),
        ({"exit_code": 1, "disk_full": True}, "OSError: 8 requested and 0 written", Status.DISK),
        ({"exit_code": 0, "disk_full": True}, "", Status.OK),
        ({"exit_code": 1}, "RuntimeError: can't start new thread", Status.PIDS),
        ({"exit_code": 1}, "BlockingIOError: [Errno 11] Resource temporarily unavailable", Status.PIDS),
        ({"exit_code": 3, "most_processes": 8}, "", Status.PIDS),
        ({"exit_code": 0, "most_processes": 8}, "", Status.OK),
        ({"exit_code": None, "signal": signal.SIGSEGV}, "", Status.FAILED),
        ({"exit_code": None, "signal": signal.SIGKILL}, "", Status.FAILED),  # by its own hand
        ({"exit_code": None, "signal": signal.SIGKILL, "kernel_oom_kills": 1}, "", Status.OOM),
        ({"exit_code": None, "signal": signal.SIGSEGV, "kernel_oom_kills": 1}, "", Status.FAILED),
        ({"exit_code": None, "signal": signal.SIGKILL, "cpu_seconds": 10.0}, "", Status.TIMEOUT),
        ({"exit_code": None, "signal": signal.SIGXCPU, "cpu_seconds": 0.1}, "", Status.FAILED),
        ({"exit_code": None, "signal": signal.SIGXFSZ}, "", Status.DISK),
        ({"killed_for": "time", "exit_code": None, "signal": 9}, "MemoryError", Status.TIMEOUT),
        ({"killed_for": "memory", "exit_code": None, "signal": 9}, "", Status.OOM),
        ({"killed_for": "processes", "exit_code": None, "signal": 9}, "", Status.PIDS),
        ({"killed_for": "disk", "exit_code": None, "signal": 9}, "", Status.DISK),
        ({"too_much_output": "why"}, "", Status.OUTPUT_LIMIT),
        ({"too_much_output": "why", "exit_code": 1}, "", Status.OUTPUT_LIMIT),
        ({"too_much_output": "why", "exit_code": 1}, "MemoryError", Status.OOM),
    ],
)
def test_status(facts: dict[str, Any], last_line: str, status: Status) -> None:
    assert decide_status(QUIET | facts, f"some output\n{last_line}\n", LIMITS) is status


def test_kills_of_children_are_recorded_also_where_the_script_ends_well() -> None:
    facts = QUIET | {
        "ran": True,
        "dropped_bytes": 0,
        "wall_seconds": 1.0,
        "peak_memory_mb": 1.0,
        "own_oom_kills": 2,
    }
    result = to_result(facts, {"head": b"", "tail": b""}, LIMITS)
    assert (result.status, result.oom_kills) == (Status.OK, 2)


def test_an_answer_that_is_none_is_refused() -> None:
    with pytest.raises(KeyError):
        to_result({"ran": True}, {"head": b"", "tail": b""}, LIMITS)


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


def test_a_letter_that_is_cut_in_two_survives() -> None:
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

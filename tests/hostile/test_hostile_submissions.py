"""Submissions that take over the process that reads them, and what they can do then.

For these tests the reader has the worst possible bug: it executes the submission as Python.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from fakes import make_task
from sandboxes import require

from mlagent_jax.grading import parsers
from mlagent_jax.grading.grade import Graded, Invalid, grade
from mlagent_jax.sandbox.pool import ENVIRONMENT
from mlagent_jax.tasks.task import Task

# Submissions see what the reader sees. `say` reports what they found, as the reason of an invalid submission.
BUGGY = """
import sys; sys.path[0] = sys.argv[1]
from mlagent_jax.grading import parser_process
from mlagent_jax.grading.submissions import RefusedSubmission
read = parser_process.parse_submission
def say(text):
    raise RefusedSubmission(str(text))
def parse_submission(spec, truth, submission):
    if submission.startswith(b"id,"):
        return read(spec, truth, submission)
    exec(submission, {"say": say, "spec": spec, "truth": truth})
parser_process.parse_submission = parse_submission
parser_process.main(sys.argv[2])
"""
VALID = b"id,y\n0,10\n1,12\n2,10\n3,14\n"
EARNED = Graded(public=1.0, private=2.0)
# Finds the pipe, the only way for a fork to report something.
PIPE = """
import os, stat
for pipe in range(3, 32):
    try:
        if stat.S_ISFIFO(os.fstat(pipe).st_mode):
            break
    except OSError:
        pass
"""
CRASHES = {
    "exits": "import os; os._exit(0)",
    "crashes": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
    "an error of Python's": "1 / 0",
    "takes memory": "x = bytearray(4 << 30)",
    "takes processor time": "while True: pass",
    "hangs": "import time; time.sleep(60)",
    "floods": PIPE + "while True: os.write(pipe, b'n' * 65536)",
    "answers nothing": PIPE + "os.close(pipe); os._exit(0)",
    "answers text for numbers": PIPE + "os.write(pipe, b't' + bytes(32)); os._exit(0)",
    "answers too few numbers": PIPE + "os.write(pipe, b'n' + bytes(24)); os._exit(0)",
    "answers another kind": PIPE + "os.write(pipe, b'?' + bytes(32)); os._exit(0)",
    "answers pickled code": PIPE + "os.write(pipe, b'n' + b'\\x80\\x04cposix\\nsystem\\n.'); os._exit(0)",
    "fills a disk": "open('/tmp/x', 'wb').write(bytes(1 << 20))",
    "starts another process": "import os; os.fork()",
}


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return make_task(tmp_path_factory.mktemp("hostile"))


@pytest.fixture(scope="module", params=["confined", "limited"])
def buggy(request: pytest.FixtureRequest) -> Iterator[str]:
    """Readers with the bug: under bubblewrap, and without it."""
    if request.param == "confined":
        require("bubblewrap")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parsers, "_BOOT", BUGGY)
        patch.setattr(parsers, "_CPU_SECONDS", 1)
        patch.setattr(parsers, "_WALL_SECONDS", 3)
        if request.param == "limited":
            patch.setattr(parsers, "why_not_bubblewrap", lambda _: "a test")
        with _fresh_pool():
            yield request.param


only_confined = pytest.mark.parametrize("buggy", ["confined"], indirect=True)


@contextlib.contextmanager
def _fresh_pool() -> Iterator[None]:
    """Starts new readers, and ends them afterwards."""
    parsers._started_pool.cache_clear()
    try:
        yield
    finally:
        parsers._pool().close()
        parsers._started_pool.cache_clear()


def reason(task: Task, source: str) -> str:
    graded = grade(task, source.encode())
    assert isinstance(graded, Invalid)
    assert graded.reason.isprintable()
    return graded.reason


@pytest.mark.parametrize("source", CRASHES.values(), ids=CRASHES.keys())
def test_a_submission_that_breaks_its_reader_is_invalid(buggy: str, task: Task, source: str) -> None:
    assert "could not be read" in reason(task, source)
    assert grade(task, VALID) == EARNED


def test_numbers_that_are_not_finite_are_refused(buggy: str, task: Task) -> None:
    for number in ("nan", "inf", "-inf"):
        answer = f"array.array('d', [0, 0, 0, float('{number}')]).tobytes()"
        source = f"{PIPE}import array\nos.write(pipe, b'n' + {answer})\nos._exit(0)"
        assert "has a value that is not what was expected: a finite number" in reason(task, source)


def test_one_submission_changes_nothing_for_the_next(buggy: str, task: Task) -> None:
    source = """
from mlagent_jax.grading import parser_process, submissions
submissions.parse_submission = parser_process.parse_submission = lambda *_: say('spoilt')
import builtins; builtins.float = lambda _: 10.0
say('done')
"""
    for _ in range(4):  # to reach every reader
        assert reason(task, source) == "done"
        assert grade(task, VALID) == EARNED


def test_labels_are_out_of_reach(buggy: str, task: Task) -> None:
    assert reason(
        task,
        "say([truth.values.tolist(), int(sum(truth.public)), spec.labels_path, hasattr(spec, 'data_dir')])",
    ) == ("[[[0.0], [0.0], [0.0], [0.0]], 0, PosixPath('.'), False]")


@only_confined
def test_a_reader_sees_nothing_of_the_host(buggy: str, task: Task, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s")
    for path in (secret, task.labels_path, Path("/etc/passwd"), Path(__file__)):
        assert reason(task, f"import os; say(os.path.exists({str(path)!r}))") == "False"
    assert reason(task, "import os; say(sorted(os.environ))").count("'") == 2 * len({*ENVIRONMENT, "PWD"})
    tries = (
        "for do in {}:\n try:\n  do()\n  say('it could')\n except OSError as error: say(type(error).__name__)"
    )
    refused = ("PermissionError", "OSError", "ConnectionRefusedError", "BlockingIOError", "FileNotFoundError")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for attempt in (
            f"lambda: __import__('socket').create_connection(('127.0.0.1', {port}), 1)",
            "lambda: open('/tmp/x', 'w')",
            "lambda: open('/sandbox/mlagent_jax/x', 'w')",
            "lambda: open('/proc/1/environ')",
            "lambda: open('/proc/1/mem', 'rb')",
            "lambda: open('/proc/sys/kernel/core_pattern', 'a')",
            "lambda: __import__('os').fork()",
            "lambda: __import__('os').kill(2, 9)",
        ):
            assert reason(task, tries.format(f"[{attempt}]")) in (*refused, "ProcessLookupError"), attempt


@only_confined
def test_a_reader_cannot_end_its_parent(buggy: str, task: Task) -> None:
    assert "could not be read" in reason(
        task, "import os, time\nos.kill(1, 9)\nos.kill(-1, 9)\ntime.sleep(9)"
    )
    assert grade(task, VALID) == EARNED


def test_readers_that_die_are_replaced(buggy: str, task: Task) -> None:
    assert grade(task, VALID) == EARNED
    for worker in list(parsers._pool()._workers):
        os.killpg(worker._process.pid, signal.SIGKILL)
    assert grade(task, VALID) == EARNED
    assert grade(task, VALID) == EARNED


def test_concurrent_first_calls_start_one_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    def start(*_: object) -> object:
        time.sleep(0.1)
        started.append(SimpleNamespace(close=lambda: None))
        return started[-1]

    monkeypatch.setattr(parsers, "WorkerPool", start)
    monkeypatch.setattr(parsers, "why_not_bubblewrap", lambda _: "a test")
    monkeypatch.setattr(parsers, "_started_pool", functools.cache(parsers._started_pool.__wrapped__))
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: parsers._pool(), range(4)))
        assert len(started) == 1


def test_many_threads_read_at_once(buggy: str, task: Task) -> None:
    """Each gets its own result."""

    def read(number: int) -> object:
        if number % 3 == 0:
            return reason(task, f"say({number})")
        return grade(task, f"id,y\n0,{10 + number}\n1,10\n2,10\n3,10\n".encode())

    expected: Callable[[int], object] = lambda i: str(i) if i % 3 == 0 else Graded(public=i / 2, private=0.0)  # noqa: E731
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(read, range(60))) == [expected(number) for number in range(60)]


def test_reports_that_no_reader_can_be_started(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsers, "_BOOT", "raise SystemExit('no numpy here')")
    with (
        _fresh_pool(),
        pytest.raises(parsers.ParserUnavailableError, match=r"stays alive on this host \(.*no numpy here"),
    ):
        grade(task, VALID)

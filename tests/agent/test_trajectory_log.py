"""The trajectory log: nothing lost, nothing half-written, nothing overwritten."""

import logging
import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from mlagent_jax.agent.trajectory import Step, Trajectory
from mlagent_jax.agent.trajectory_log import TrajectoryLog, latest_trajectories, read_trajectories
from mlagent_jax.environment.state import Action, EnvState, Outcome
from mlagent_jax.jsonl import JsonlError

STATE = EnvState("abc", 0.5, 0.25)
STEP = Step(
    STATE, "Action: \ud800 ü\n", Action("List Files", {"dir_path": "."}), Outcome.NEUTRAL, "train.py", STATE,
    0.5, 0.5, 0.5, tokens=(1, 2), logprobs=(-0.1, -1e-9),
)  # fmt: skip


def trajectory(index, **changes):
    whole = Trajectory(
        "ames", "expert", index, 7, ("idea",), (STEP,), 0.5, 0.25, 0.5, 0.25, False, "step_limit"
    )
    return replace(whole, **changes)


def masked(index):
    step = replace(STEP, outcome=Outcome.INFRASTRUCTURE, reward=None)
    return trajectory(index, steps=(STEP, step), ended="infrastructure", meta={"infrastructure": True})


def test_what_is_appended_is_read_back(tmp_path):
    path = tmp_path / "collect" / "trajectories.jsonl"
    with TrajectoryLog(path) as log:
        assert log.keys() == frozenset()
        for index in range(3):
            log.append(trajectory(index))
            # On disk at once, not when the log is closed.
            assert len(list(read_trajectories(path))) == index + 1
    with TrajectoryLog(path) as log:
        assert log.keys() == {f"expert/ames/{index}" for index in range(3)}
        log.append(trajectory(3))
    assert list(read_trajectories(path)) == [trajectory(index) for index in range(4)]


def test_masked_episodes_are_kept_and_run_again(tmp_path):
    path = tmp_path / "t.jsonl"
    with TrajectoryLog(path) as log:
        log.append(masked(0))
        assert log.keys() == frozenset()
    with TrajectoryLog(path) as log:
        assert log.keys() == frozenset()
        log.append(trajectory(0))
        assert log.keys() == {"expert/ames/0"}
    assert [t.is_masked for t in read_trajectories(path)] == [True, False]
    assert latest_trajectories(path) == {"expert/ames/0": trajectory(0)}


@pytest.mark.parametrize("torn", [b"{", b'{"task": "ames"', b"\0" * 40, b"x" * 200_000, None])
def test_a_torn_last_line_is_dropped_and_said(tmp_path, caplog, torn):
    path = tmp_path / "t.jsonl"
    with TrajectoryLog(path) as log:
        log.append(trajectory(0))
        log.append(trajectory(1))
    whole = path.read_bytes()
    # None: a last line that lacks only its newline.
    path.write_bytes(whole[:-1] if torn is None else whole + torn)
    kept = 1 if torn is None else 2
    assert len(list(read_trajectories(path))) == kept
    with caplog.at_level(logging.WARNING), TrajectoryLog(path) as log:
        assert len(log.keys()) == kept
        log.append(trajectory(5))
    assert "torn" in caplog.text and str(path) in caplog.text
    assert [t.index for t in read_trajectories(path)] == [*[0, 1][:kept], 5]


def test_a_file_that_is_one_torn_line(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_bytes(b'{"task"')
    with TrajectoryLog(path) as log:
        log.append(trajectory(0))
    assert [t.index for t in read_trajectories(path)] == [0]


DAMAGED = [b"{broken\n", b"\n", b"[]\n", b"null\n", b"\xff\xfe\n", b'{"schema": 1}\n', b'{"schema": 9}\n']


@pytest.mark.parametrize("line", DAMAGED)
@pytest.mark.parametrize("position", [0, 1, 2])
def test_damage_elsewhere_is_named_and_nothing_is_touched(tmp_path, line, position):
    path = tmp_path / "t.jsonl"
    with TrajectoryLog(path) as log:
        log.append(trajectory(0))
        log.append(trajectory(1))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:position], line, *lines[position:]]) + b"torn")
    before = path.read_bytes()
    with pytest.raises(JsonlError, match=rf"t\.jsonl, line {position + 1} (is not|holds).*delete that line"):
        TrajectoryLog(path)
    with pytest.raises(JsonlError, match=f"line {position + 1}"):
        list(read_trajectories(path))
    assert path.read_bytes() == before


def test_one_writer_at_a_time(tmp_path):
    path = tmp_path / "t.jsonl"
    with TrajectoryLog(path), pytest.raises(JsonlError, match="another process is writing"):
        TrajectoryLog(path)
    TrajectoryLog(path).close()


def test_what_cannot_be_opened(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(JsonlError, match="cannot write"):
        TrajectoryLog(tmp_path / "file" / "t.jsonl")
    with pytest.raises(JsonlError, match="cannot read"):
        list(read_trajectories(tmp_path / "absent.jsonl"))
    assert latest_trajectories(tmp_path / "absent.jsonl", missing_ok=True) == {}


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "t.jsonl"
    with TrajectoryLog(path) as log:
        log.append(trajectory(0))
        size = path.stat().st_size
        old = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, old[1]))
        try:
            with pytest.raises(JsonlError, match=r"cannot write .*t.jsonl: File too large"):
                log.append(trajectory(1))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, old)
            signal.signal(signal.SIGXFSZ, handler)
        assert path.stat().st_size == size and log.keys() == {"expert/ames/0"}
        log.append(trajectory(1))
    assert [t.index for t in read_trajectories(path)] == [0, 1]


def test_a_trajectory_that_is_not_json_is_refused_before_anything_is_written(tmp_path):
    path = tmp_path / "t.jsonl"
    with TrajectoryLog(path) as log, pytest.raises(ValueError, match="not JSON compliant"):
        log.append(trajectory(0, public_score=float("nan")))
    assert path.read_bytes() == b""


WRITER = """
import sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from test_trajectory_log import trajectory
from mlagent_jax.agent.trajectory_log import TrajectoryLog
log = TrajectoryLog(Path(sys.argv[1]))
for index in range(10**9):
    log.append(trajectory(index))
    print(index, flush=True)
"""


def test_kill_9_loses_nothing_that_was_said_to_be_stored(tmp_path):
    path = tmp_path / "t.jsonl"
    here = os.path.dirname(__file__)  # noqa: PTH120
    writer = subprocess.Popen([sys.executable, "-c", WRITER, path, here], stdout=subprocess.PIPE, text=True)
    for _ in range(20):
        stored = int(writer.stdout.readline())
    writer.kill()
    rest = writer.communicate()[0].split()
    stored = int(rest[-1]) if rest else stored
    with TrajectoryLog(path) as log:
        assert {f"expert/ames/{index}" for index in range(stored + 1)} <= log.keys()
        log.append(trajectory(10**9))
    assert [t.index for t in read_trajectories(path)][: stored + 1] == list(range(stored + 1))

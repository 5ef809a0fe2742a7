"""A container serves many episodes: how many containers a batch needs, and that nothing passes from job to job."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sandboxes import QUICK, containers_below, require, script_job
from traces import CANARY, IDLE, LEAVE, LOOK

from mlagent_jax.errors import UserError
from mlagent_jax.sandbox.containers import policy
from mlagent_jax.sandbox.containers.settings import DockerSettings
from mlagent_jax.sandbox.docker import DockerSandbox
from mlagent_jax.sandbox.interface import Status

# The user id identifies a container: no two containers of a pool share one.
WHICH = "import os; print(os.getuid())"
OTHERS = """
import os, time
others = sorted(int(pid) for pid in os.listdir("/proc") if pid.isdigit() and int(pid) != os.getpid())
"""
ROOMY = dataclasses.replace(QUICK, output_kb=4096, wall_seconds=60, cpu_seconds=60)


@pytest.fixture(scope="module")
def sandbox(data_root: Path) -> Iterator[DockerSandbox]:
    require("docker")
    with DockerSandbox(data_root, 1, ()) as opened:
        yield opened


def run(sandbox: DockerSandbox, source: str, lease: str = "", **changes: Any) -> str:
    job = dataclasses.replace(script_job(source, **changes), lease=lease)
    result = sandbox.run(job)
    assert result.status is Status.OK, result
    return result.output


@pytest.mark.parametrize("batch", [2, 32])
def test_a_larger_batch_starts_no_more_containers(data_root: Path, batch: int) -> None:
    """Episodes of two tasks run in lock-step, as in collection, RL and evaluation."""
    require("docker")
    with DockerSandbox(data_root, 2, ()) as sandbox, ThreadPoolExecutor(batch) as threads:
        for _ in range(3):
            jobs = [
                dataclasses.replace(
                    script_job("print(1)", data_dir=data_root / ("mine", "other")[episode % 2]),
                    lease=f"episode {episode}",
                )
                for episode in range(batch)
            ]
            assert all(result.output == "1\n" for result in threads.map(sandbox.run, jobs))
        for episode in range(batch):
            sandbox.release(f"episode {episode}")
        assert sandbox.pool.started <= 2 * 2  # tasks and workers
        assert containers_below(sandbox) == sandbox.pool.ready


def test_episodes_share_a_container_but_tasks_do_not(sandbox: DockerSandbox, data_root: Path) -> None:
    mine = {run(sandbox, WHICH, lease, data_dir=data_root / "mine") for lease in ("a", "b", "", "")}
    other = {run(sandbox, WHICH, lease, data_dir=data_root / "other") for lease in ("a", "c")}
    again = {run(sandbox, WHICH, "d", data_dir=data_root / "mine")}
    assert (len(mine), len(other)) == (1, 1)
    assert mine == again != other


def test_one_container_per_episode_on_request(data_root: Path) -> None:
    require("docker")
    with DockerSandbox(data_root, 1, (), settings=DockerSettings(container_per="episode")) as sandbox:
        first, again, other, single = (run(sandbox, WHICH, lease) for lease in ("a", "a", "b", ""))
        assert first == again
        assert len({first, other, single}) == 3


def test_a_container_is_replaced_in_time(data_root: Path) -> None:
    """After its last job, by one that was started before that."""
    require("docker")
    with DockerSandbox(data_root, 1, (), settings=DockerSettings(most_jobs=6)) as sandbox:
        users = [run(sandbox, WHICH) for _ in range(6)]
        assert soon(lambda: len(sandbox.pool.ready) == 1, 20)
        users.append(run(sandbox, WHICH))
        assert len(set(users[:6])) <= 2  # the successor may be used early
        assert len(set(users)) == 2
        assert sandbox.pool.started == 2


def test_idle_containers_are_limited(data_root: Path) -> None:
    """The container of the least recently used task is evicted."""
    require("docker")
    limits = [dataclasses.replace(QUICK, open_files=number) for number in (100, 101, 102)]
    with DockerSandbox(data_root, 1, (), settings=DockerSettings(kept=2)) as sandbox:
        first, second, third = (run(sandbox, WHICH, limits=limit) for limit in limits)
        assert run(sandbox, WHICH, limits=limits[1]) == second
        assert run(sandbox, WHICH, limits=limits[2]) == third
        assert run(sandbox, WHICH, limits=limits[0]) != first
        assert len(sandbox.pool.ready) == 2


@pytest.mark.parametrize(
    "source",
    [
        "import os\nfor _ in range(99): os.fork() or os._exit(0); os.wait()",
        "import os\nfor number in range(99): open(str(number), 'w').close()",
        "import os\nfor number in range(99): os.link('train.py', 'x'); os.unlink('x')",
        f"{OTHERS}[os.kill(pid, 9) for pid in others]",
        f"{OTHERS}for _ in range(9):\n for number in (19, 18): os.kill(others[1], number); time.sleep(0.01)",
        f"{OTHERS}os.kill(others[1], 19)",
    ],
    ids=["processes", "files", "links", "kills", "stops and continues", "stops"],
)
def test_a_job_that_leaves_a_trace_is_the_containers_last(sandbox: DockerSandbox, source: str) -> None:
    before = run(sandbox, WHICH)
    assert run(sandbox, WHICH, "another") == before
    run(sandbox, source)
    assert run(sandbox, WHICH) != before


def test_containers_serve_one_episode_each_if_earlier_jobs_are_visible(
    data_root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As with an unknown engine that hides less."""
    require("docker")
    monkeypatch.setattr(policy, "MASKED_PATHS", policy.BASE_MASKED_PATHS)
    with DockerSandbox(data_root, 1, ()) as sandbox:
        first, again, other = (run(sandbox, WHICH, lease) for lease in ("a", "a", "b"))
        assert first == again != other
        exposed = sandbox.pool.exposed
    assert {"/proc/1/stat", "/proc/1/status"} <= set(exposed)
    assert any("memory" in path for path in exposed)
    warnings = [record.getMessage() for record in caplog.records if "one episode each" in record.getMessage()]
    assert len(warnings) == 1
    assert "/proc/1/" in warnings[0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"container_per": "run"}, "container_per is 'run', but must be one of task, episode"),
        ({"most_jobs": 0}, "most_jobs is 0, but must be a whole number of at least 1"),
        ({"kept": -1}, "kept is -1, but must be a whole number from 0"),
    ],
)
def test_invalid_settings_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        DockerSettings(**values)


def soon(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def look(data_root: Path, between: str) -> dict[str, Any]:
    """What a job of another episode sees after `between` ran in the same container."""
    with DockerSandbox(data_root, 1, ("numpy",)) as sandbox:
        looks = [run(sandbox, source, source, limits=ROOMY) for source in (LOOK, between, LOOK)]
        assert sandbox.pool.started == 1
    before, after = json.loads(looks[0]), json.loads(looks[2])
    # How often the zygote has slept before its first job varies, so only the difference counts.
    slept = "/proc/<1>/status:voluntary_ctxt_switches"
    after[slept] = int(after[slept].split()[1]) - int(before[slept].split()[1])
    return after


@pytest.mark.slow
def test_nothing_of_one_episode_is_seen_by_the_next(data_root: Path) -> None:
    """Compares everything that can be read after a job that leaves every trace it can, and after an idle one.

    Values that differ between two idle runs come from the host, not from jobs. Differences are tested repeatedly.
    """
    require("docker")
    idle = [look(data_root, IDLE) for _ in range(2)]
    suspects = {key for key in idle[0] if idle[0][key] == idle[1].get(key)}
    assert len(suspects) > 500
    assert {"/proc/<1>/status:voluntary_ctxt_switches", "pid", "/tmp entries"} <= suspects
    for _ in range(3):
        after = look(data_root, LEAVE)
        assert after["canaries in memory"] == 0
        assert CANARY not in json.dumps(after)
        suspects = {key for key in suspects if after.get(key) != idle[0][key]}
        if not suspects:
            return
        again = look(data_root, IDLE)
        suspects = {key for key in suspects if again.get(key) == idle[0][key]}
    raise AssertionError({key: (idle[0][key], after.get(key)) for key in sorted(suspects)})

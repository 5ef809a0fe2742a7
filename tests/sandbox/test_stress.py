"""Many jobs, a third of them hostile, while containers, the engine and the trainer are killed."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hostile_programs import CONFUSION, ESCAPES, EXHAUSTION, Hostile
from sandboxes import (
    FEW_MODULES,
    QUICK,
    assert_settles,
    containers_below,
    descendants,
    open_backend,
    require,
    script_job,
)

from mlagent_jax.sandbox.containers.engine import Engine, EngineError
from mlagent_jax.sandbox.docker import DockerSandbox
from mlagent_jax.sandbox.interface import Result, Sandbox, Status

SLOTS = 4
# Only programs that take about as long as a harmless one: the test is about many jobs, not about slow ones.
HOSTILE = [
    program
    for program in (*EXHAUSTION, *ESCAPES, *CONFUSION)
    if program.wall_seconds > 2 and program.name not in ("memory hog in children", "shared memory hog")
]


def jobs(count: int, seed: int) -> list[Hostile]:
    """Three of ten are hostile. The others print their own number."""
    rng = random.Random(seed)
    return [
        rng.choice(HOSTILE)
        if number % 10 < 3
        else Hostile(f"{number}", f"print({number})", (Status.OK,), f"{number}\n")
        for number in range(count)
    ]


def run_all(sandbox: Sandbox, programs: list[Hostile], data: Path) -> list[Result]:
    def run(numbered: tuple[int, Hostile]) -> Result:
        number, program = numbered
        limits = dataclasses.replace(QUICK, wall_seconds=program.wall_seconds)
        job = dataclasses.replace(
            script_job(program.source, limits, data), lease=f"{number // 5}" if number % 2 else ""
        )
        result = sandbox.run(job)
        return dataclasses.replace(result, files={})  # some fill the whole workspace

    with ThreadPoolExecutor(SLOTS + 2) as threads:
        return list(threads.map(run, enumerate(programs)))


def check(backend: str, programs: list[Hostile], results: list[Result]) -> None:
    assert len(results) == len(programs)
    for number, (program, result) in enumerate(zip(programs, results, strict=True)):
        where = (number, program.name, result.status, result.error, result.output[-500:])
        assert result.status in program.statuses, where
        in_docker = program.prints_in_docker if backend == "docker" else None
        assert (program.prints if in_docker is None else in_docker) in result.output, where
        if program.name.isdigit():
            assert result.output == program.prints, where


@pytest.mark.parametrize("backend", ["bubblewrap", "docker"])
@pytest.mark.parametrize(
    "count", [30, pytest.param(500, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
)
def test_every_result_is_right_and_nothing_is_left(backend: str, count: int, data_root: Path) -> None:
    """In a process of its own, so that its memory is not affected by earlier tests."""
    require(backend)
    program = f"""
import sys
sys.path[:0] = {[str(Path(__file__).parents[1]), str(Path(__file__).parent)]!r}
from pathlib import Path
import test_stress
test_stress.run_trainer({backend!r}, {count}, Path({str(data_root)!r}))
"""
    trainer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert trainer.returncode == 0, trainer.stdout + trainer.stderr
    growth = float(trainer.stdout)
    assert growth < 40, trainer.stdout


def run_trainer(backend: str, count: int, data_root: Path) -> None:
    """Prints by how many MiB this process grows after the first tenth of the jobs."""
    before, files = descendants(), _open_files()
    with open_backend(backend, data_root, workers=SLOTS, preload=FEW_MODULES) as sandbox:
        programs = jobs(count, seed=1)
        tenth = count // 10
        results = run_all(sandbox, programs[:tenth], data_root / "mine")
        memory = _resident_mebibytes()
        results += run_all(sandbox, programs[tenth:], data_root / "mine")
        print(_resident_mebibytes() - memory)
        check(backend, programs, results)
    assert_settles(before)
    assert _open_files() <= files
    if isinstance(sandbox, DockerSandbox):
        assert not containers_below(sandbox)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_continues_when_containers_and_the_engine_are_killed(data_root: Path) -> None:
    """Needs an engine run by launch/docker/engine.sh, which restarts it."""
    require("docker")
    with open_backend("docker", data_root, workers=SLOTS, preload=FEW_MODULES) as sandbox:
        assert isinstance(sandbox, DockerSandbox)
        programs = jobs(100, seed=2)
        with _kills(sandbox) as killed:
            results = run_all(sandbox, programs, data_root / "mine")
        check("docker", programs, results)
        assert killed.count("engine") == 1
        assert killed.count("container") >= 3
    deadline = time.monotonic() + 20
    while containers_below(sandbox) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not containers_below(sandbox)


@pytest.mark.parametrize("backend", ["bubblewrap", "docker"])
def test_a_killed_trainer_resumes_where_it_was(backend: str, data_root: Path, tmp_path: Path) -> None:
    """Every job is completed, and those already in the cache do not run again."""
    require(backend)
    program = f"""
import dataclasses, json, sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from pathlib import Path
from sandboxes import open_backend, script_job
from mlagent_jax.sandbox.cache import CachedSandbox
backend = open_backend({backend!r}, Path({str(data_root)!r}), preload=())
with CachedSandbox(backend, Path({str(tmp_path)!r}, "cache")) as sandbox:
    for number in range(8):
        result = sandbox.run(script_job(f"import time; time.sleep(.1); print({{number}} ** 2)"))
        print(json.dumps([number, result.status.value, result.output, result.cached]), flush=True)
"""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as trainer:
        assert trainer.stdout is not None
        first = [json.loads(trainer.stdout.readline()) for _ in range(4)]
        trainer.send_signal(signal.SIGKILL)
    again = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    second = [json.loads(line) for line in again.stdout.splitlines()]
    assert first == [[number, "ok", f"{number**2}\n", False] for number in range(4)]
    assert [result[:3] for result in second] == [[number, "ok", f"{number**2}\n"] for number in range(8)]
    assert [result[3] for result in second[:4]] == [True] * 4
    assert not any(result[3] for result in second[5:])


@contextlib.contextmanager
def _kills(sandbox: DockerSandbox) -> Iterator[list[str]]:
    """Kills a container every 1.5 seconds, and after three of them the engine. Yields what was killed."""
    pid_file = Path(os.environ["DOCKER_HOST"].removeprefix("unix://")).with_name("dockerd.pid")
    if not pid_file.exists():
        pytest.skip("the engine was not started by launch/docker/engine.sh")
    killed: list[str] = []
    stop = threading.Event()

    def kill() -> None:
        rng = random.Random(0)
        engine = Engine("", 10.0, 1)
        while not stop.wait(1.5):
            if len(killed) == 3:
                os.kill(int(pid_file.read_text()), signal.SIGTERM)
                killed.append("engine")
                continue
            with contextlib.suppress(EngineError, IndexError):
                name = rng.choice(sorted(containers_below(sandbox)))
                engine.call("kill", lambda client, name=name: client.kill(name))
                killed.append("container")
        engine.close()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        yield killed
    finally:
        stop.set()
        killer.join()


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _resident_mebibytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20

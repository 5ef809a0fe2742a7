"""What sandboxes cost: warm ones beside cold starts, containers, throughput, memory and whole episodes, in one run.

    launch/docker/engine.sh FOLDER python -m experiments.benchmarks.sandbox --repeats=20

The script imports pandas and scikit-learn, fits a small model, and prints how long that took after its
imports. Overhead is all the rest of the time until its result is in hand: starting, importing, isolating,
ending, reading its files. Docker is measured where an engine answers that has the image.

Bars, medians: overhead 50 ms with bubblewrap and 100 ms in a container that has served, and a tenth of a cold
`docker run`; a fresh container from a warm pool 20 ms; N slots 0.9 N times the throughput of one; 10 MiB of this
process for each slot. Last come whole episodes, of 2 to 64 at once: see `episodes`.
"""

from __future__ import annotations

import dataclasses
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

from absl import flags

from experiments.benchmarks import episodes
from experiments.cli.program import run_program
from mlagent_jax.sandbox.bubblewrap import BubblewrapSandbox
from mlagent_jax.sandbox.containers.settings import DockerSettings
from mlagent_jax.sandbox.docker import DockerSandbox
from mlagent_jax.sandbox.interface import Job, Sandbox, SandboxUnavailableError, Status
from mlagent_jax.sandbox.pool import ENVIRONMENT
from mlagent_jax.sandbox.process import ProcessSandbox

REPEATS = flags.DEFINE_integer("repeats", 20, "Runs of each kind; they take turns.", lower_bound=1)
SLOTS = flags.DEFINE_integer("slots", 2, "Slots whose throughput is set against one's.", lower_bound=2)
EPISODES = flags.DEFINE_integer("episodes", 20, "Episodes of each task at each batch size.", lower_bound=1)
ONLY_EPISODES = flags.DEFINE_bool("only_episodes", False, "Measure nothing but whole episodes.")
_THROUGHPUT_JOBS = 8  # for each slot
_THROUGHPUT_ROUNDS = 3
_COLD_DOCKER = "cold, docker run"

SCRIPT = """
import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
import time


begun = time.perf_counter()
train = pd.read_csv("data/train.csv")
X, y = train.drop(columns="y"), train["y"]
X_fit, X_valid, y_fit, y_valid = train_test_split(X, y, random_state=0)
for model in (LogisticRegression(), RandomForestClassifier(10, random_state=0)):
    model.fit(X_fit, y_fit)
    print(model.score(X_valid, y_valid))
pd.DataFrame({"id": range(len(X)), "y": model.predict(X)}).to_csv("submission.csv", index=False)
print("own work:", time.perf_counter() - begun)
"""
BUSY = "import time\nwhile time.process_time() < 1.0: pass"

Run = Callable[[], str]


def main(argv: Sequence[str]) -> None:
    del argv
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        data = _write_data(root)
        docker = _docker_settings(root / "public")
        if ONLY_EPISODES.value:
            _measure_episodes(docker)
            return
        overheads = _measure_overheads(root, data, docker)
        print()
        _report(overheads, "warm, bubblewrap", 0.05)
        if docker is not None:
            _report(overheads, "warm, docker", 0.1)
            ratio = statistics.median(overheads[_COLD_DOCKER]) / statistics.median(overheads["warm, docker"])
            _verdict(f"a cold docker run costs {ratio:.0f} times a warm container", ratio >= 10, "10")
            _measure_leases(root / "public", data, docker)
        _measure_throughput("bubblewrap", root / "public", data, docker)
        _measure_memory("bubblewrap", root / "public", docker)
        if docker is not None:
            _measure_throughput("docker", root / "public", data, docker)
            _measure_single_steps(root / "public", data, docker)
            _measure_memory("docker", root / "public", docker)
        _measure_episodes(docker)


def _measure_episodes(docker: DockerSettings | None) -> None:
    if docker is not None:
        is_met = episodes.measure_episodes(EPISODES.value)
        _verdict("docker: whole episodes against bubblewrap's", is_met, f"{episodes.MOST_TIMES} times")


def _docker_settings(root: Path) -> DockerSettings | None:
    try:
        with DockerSandbox(root, workers=1):
            return DockerSettings()
    except SandboxUnavailableError as error:
        print(f"without Docker: {error}")
        return None


def _open(name: str, root: Path, workers: int, docker: DockerSettings | None) -> Sandbox:
    if name == "docker":
        return DockerSandbox(root, workers, settings=docker)
    return {"bubblewrap": BubblewrapSandbox, "process": ProcessSandbox}[name](root, workers)


def _measure_overheads(root: Path, data: Path, docker: DockerSettings | None) -> dict[str, list[float]]:
    with ExitStack() as stack:
        runs: dict[str, Run] = {}
        for name in ("bubblewrap", "process", *(["docker"] if docker else [])):
            sandbox = _open(name, root / "public", 1, docker)
            stack.callback(sandbox.close)
            runs[f"warm, {name}"] = _warm_run(sandbox, data)
        runs["cold, python script.py"] = _cold_run(root / "cold", data)
        if docker is not None:
            runs[_COLD_DOCKER] = _cold_docker_run(root / "cold", data, docker)
        starts = {name: _timed(run) for name, run in runs.items()}  # workers import; files come into memory
        time.sleep(3)  # and a spare container
        overheads: dict[str, list[float]] = {name: [] for name in runs}
        work: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(REPEATS.value):
            for name, run in runs.items():
                total, own = _timed(run)
                overheads[name].append(total - own)
                work[name].append(own)
    print(f"{REPEATS.value} runs of each kind, seconds; load average {os.getloadavg()[0]:.1f}")
    print(f"{'':<26}{'overhead: median':>18}{'least':>8}{'most':>8}{'own work':>10}{'first run':>11}")
    for name, values in overheads.items():
        print(
            f"{name:<26}{statistics.median(values):>18.3f}{min(values):>8.3f}{max(values):>8.3f}"
            f"{statistics.median(work[name]):>10.3f}{starts[name][0]:>11.2f}"
        )
    return overheads


def _measure_leases(root: Path, data: Path, settings: DockerSettings) -> None:
    """Measures the time from asking for a container that has run nothing yet to having it."""
    job = Job({"train.py": b""}, "train.py", data, "benchmark")
    seconds = []
    settings = dataclasses.replace(settings, container_per="episode")
    with DockerSandbox(root, workers=1, settings=settings) as sandbox:
        sandbox.run(job)
        for _ in range(5):
            while not sandbox.pool.ready:
                time.sleep(0.01)
            begun = time.perf_counter()
            with sandbox.pool.borrow(job, str(data)):
                seconds.append(time.perf_counter() - begun)
    lease = statistics.median(seconds)
    _verdict(f"lease of a fresh container from a warm pool: {lease * 1000:.1f} ms", lease <= 0.02, "20 ms")


def _measure_throughput(name: str, root: Path, data: Path, docker: DockerSettings | None) -> None:
    """Jobs of a second of processor time each; every thread's jobs are one episode's.

    One slot and many take turns, so that what else the host does falls on both.
    """
    job = Job({"train.py": BUSY.encode()}, "train.py", data, "benchmark")

    def episode(sandbox: Sandbox, number: int, jobs: int) -> None:
        for _ in range(jobs):
            result = sandbox.run(dataclasses.replace(job, lease=f"episode {number}"))
            assert result.status is Status.OK, result

    def rate(sandbox: Sandbox, slots: int, jobs: int) -> float:
        begun = time.perf_counter()
        with ThreadPoolExecutor(slots) as threads:
            list(threads.map(episode, [sandbox] * slots, range(slots), [jobs] * slots))
        return slots * jobs / (time.perf_counter() - begun)

    rates: dict[int, list[float]] = {1: [], SLOTS.value: []}  # by the number of slots
    with ExitStack() as stack:
        sandboxes = {slots: stack.enter_context(closing(_open(name, root, slots, docker))) for slots in rates}
        for slots, sandbox in sandboxes.items():
            rate(sandbox, slots, 1)  # until all are warm
        for slots, sandbox in sandboxes.items():
            _await_ready(sandbox, slots)
        for _ in range(_THROUGHPUT_ROUNDS):
            for slots, sandbox in sandboxes.items():
                rates[slots].append(rate(sandbox, slots, _THROUGHPUT_JOBS // 2))
    one, many = (statistics.median(values) for values in rates.values())
    factor = many / one
    _verdict(
        f"{name}: {one:.2f} jobs/s with one slot, {many:.2f} with {SLOTS.value}: {factor:.2f} times",
        factor >= 0.9 * SLOTS.value,
        f"{0.9 * SLOTS.value:.1f}",
    )


def _await_ready(sandbox: Sandbox, count: int) -> None:
    """Waits until so many containers stand ready: one that starts takes a processor for seconds."""
    give_up = time.monotonic() + 60
    while isinstance(sandbox, DockerSandbox) and len(sandbox.pool.ready) < count:
        assert time.monotonic() < give_up, f"{len(sandbox.pool.ready)} of {count} containers stand ready"
        time.sleep(0.1)


def _measure_single_steps(root: Path, data: Path, settings: DockerSettings) -> None:
    """A batch of single steps, in containers of the task, and with one for each thread that takes them."""
    seconds = {}
    job = Job({"train.py": SCRIPT.encode()}, "train.py", data, "benchmark")
    for per in ("task", "episode"):
        chosen = dataclasses.replace(settings, container_per=per)
        with (
            DockerSandbox(root, SLOTS.value, settings=chosen) as sandbox,
            ThreadPoolExecutor(SLOTS.value) as threads,
        ):
            list(threads.map(sandbox.run, [job] * SLOTS.value))
            _await_ready(sandbox, SLOTS.value)

            def step(_: int, sandbox: DockerSandbox = sandbox) -> None:
                result = sandbox.run(dataclasses.replace(job, lease=f"batch {threading.get_ident()}"))
                assert result.status is Status.OK, result

            begun = time.perf_counter()
            list(threads.map(step, range(_THROUGHPUT_JOBS * SLOTS.value)))
            seconds[per] = time.perf_counter() - begun
    print(
        f"docker: {_THROUGHPUT_JOBS * SLOTS.value} single steps on {SLOTS.value} slots take {seconds['task']:.1f} s "
        f"in the task's containers, {seconds['episode']:.1f} s in the batch's own"
    )


def _measure_memory(name: str, root: Path, docker: DockerSettings | None) -> None:
    """What this process grows by for each slot, with its answers in it."""
    job = Job({"train.py": b"open('x', 'wb').write(bytes(1 << 20))"}, "train.py")
    first = _open(name, root, 1, docker)
    first.run(job)
    before = _resident_mebibytes()
    slots = 4
    sandbox = _open(name, root, slots, docker)
    with ThreadPoolExecutor(slots) as threads:
        results = list(threads.map(sandbox.run, [job] * slots))
    grown = (_resident_mebibytes() - before) / slots
    assert all(result.status is Status.OK for result in results)
    sandbox.close()
    first.close()
    _verdict(f"{name}: {grown:.1f} MiB of this process for each slot", grown < 10, "10 MiB")


def _report(overheads: dict[str, list[float]], name: str, bar: float) -> None:
    median = statistics.median(overheads[name])
    _verdict(
        f"{name}: {median * 1000:.0f} ms above the script's own work", median <= bar, f"{bar * 1000:.0f} ms"
    )


def _verdict(what: str, met: bool, bar: str) -> None:
    print(f"{what}; bar {bar}: {'met' if met else 'MISSED'}", flush=True)


def _write_data(root: Path) -> Path:
    import numpy as np
    import pandas as pd

    data = root / "public" / "task"
    data.mkdir(parents=True)
    for folder in (root, root / "public", data):
        folder.chmod(0o755)
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(1000, 8)), columns=[f"x{i}" for i in range(8)])
    table["y"] = (table["x0"] * table["x1"] > 0).astype(int)
    table.to_csv(data / "train.csv", index=False)
    return data


def _warm_run(sandbox: Sandbox, data: Path) -> Run:
    job = Job({"train.py": SCRIPT.encode()}, "train.py", data, "benchmark", lease="episode")

    def run() -> str:
        result = sandbox.run(job)
        if result.status is not Status.OK:
            raise RuntimeError(f"the script ended with {result.status}: {result.error or result.output}")
        return result.output

    return run


def _cold_run(folder: Path, data: Path) -> Run:
    folder.mkdir()
    (folder / "train.py").write_text(SCRIPT)
    (folder / "data").symlink_to(data)
    environment = {**ENVIRONMENT, "PATH": os.environ["PATH"]}
    command = [sys.executable, "train.py"]

    def run() -> str:
        return subprocess.run(
            command, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, text=True
        ).stdout

    return run


def _cold_docker_run(folder: Path, data: Path, settings: DockerSettings) -> Run:
    """What anyone would type, without any of the walls."""
    mounts = ["-v", f"{folder / 'train.py'}:/script/train.py:ro", "-v", f"{data}:/tmp/data:ro"]
    command = ["docker", "run", "--rm", "--network=none", "-w", "/tmp", "--tmpfs", "/tmp:mode=1777", *mounts]
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "LOKY_MAX_CPU_COUNT"):
        command += ["-e", f"{variable}=1"]
    command += [settings.image, "python3", "/script/train.py"]

    def run() -> str:
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout

    return run


def _timed(run: Run) -> tuple[float, float]:
    """Seconds that a run took, and seconds that its script says it worked for."""
    begun = time.perf_counter()
    output = run()
    total = time.perf_counter() - begun
    said = re.search(r"own work: ([\d.]+)", output)
    assert said is not None, output
    return total, float(said[1])


def _resident_mebibytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


if __name__ == "__main__":
    run_program(main)

"""What only containers have: leases, restrictions, and the removal of a dead owner's containers."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sandboxes import QUICK, containers_below, open_backend, require, script_job

from mlagent_jax.sandbox.containers import owner, reaper
from mlagent_jax.sandbox.containers.checks import check_engine
from mlagent_jax.sandbox.containers.container import Container
from mlagent_jax.sandbox.containers.engine import Engine, EngineError
from mlagent_jax.sandbox.containers.policy import ContainerSpec, create_arguments
from mlagent_jax.sandbox.containers.settings import DockerSettings
from mlagent_jax.sandbox.docker import DockerSandbox
from mlagent_jax.sandbox.interface import Job, SandboxUnavailableError, Status
from mlagent_jax.sandbox.pool import run_job

SPEC = ContainerSpec.from_limits(QUICK, "", "")


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    require("docker")
    opened = Engine("", 30.0, 4)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def sandbox(data_root: Path) -> Iterator[DockerSandbox]:
    opened = open_backend("docker", data_root, workers=2, preload=())
    assert isinstance(opened, DockerSandbox)
    yield opened
    opened.close()


def leased(source: str, lease: str) -> Job:
    return dataclasses.replace(script_job(source), lease=lease)


def test_nothing_is_carried_over_from_job_to_job(sandbox: DockerSandbox) -> None:
    """Neither files, nor properties of folders, nor kernel objects."""
    source = """
import ctypes, os, subprocess, sys, time
libc = ctypes.CDLL(None, use_errno=True)
for folder in (".", "/tmp", "/dev/shm"):
    print(sorted(os.listdir(folder)), os.listxattr(folder), oct(os.stat(folder).st_mode))
    if os.stat(folder).st_uid == os.getuid():
        print(os.stat(folder).st_mtime > time.time() - 600, os.stat(folder).st_atime > time.time() - 600)
        try:
            os.setxattr(folder, "user.weights", bytes(100))
        except OSError as error:
            assert error.errno == 95, error  # an older kernel's tmpfs has none
    os.makedirs(f"{folder}/locked/deep")
    open(f"{folder}/locked/file", "w").close()
    os.symlink("/", f"{folder}/link")
    os.chmod(f"{folder}/locked", 0)
    if os.stat(folder).st_uid == os.getuid():
        os.utime(folder, (7, 7))
        os.chmod(folder, 0o711)
print(len([pid for pid in os.listdir("/proc") if pid.isdigit() and int(pid) != os.getpid()]))
for table in ("msg", "sem", "shm"):
    print(len(open(f"/proc/sysvipc/{table}").readlines()))
for get in (lambda: libc.semget(7, 1, 0o1600), lambda: libc.shmget(7, 4096, 0o1600), lambda: libc.msgget(7, 0o1600)):
    print(get(), ctypes.get_errno())
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
"""
    expected = (
        "['train.py'] [] 0o40700\nTrue True\n[] [] 0o40700\nTrue True\n[] [] 0o41777\n2\n"
        + "1\n" * 3
        + "-1 1\n" * 3
    )
    runs = [sandbox.run(leased(source, "episode")) for _ in range(3)]
    assert [(run.status, run.output) for run in runs] == [(Status.OK, expected)] * 3
    sandbox.release("episode")


def test_restrictions(sandbox: DockerSandbox, engine: Engine) -> None:
    """As reported by the engine."""
    sandbox.run(leased("", "restrictions"))
    facts = engine.call("inspect", lambda client: client.inspect_container(sorted(sandbox.pool.ready)[-1]))
    host, config = facts["HostConfig"], facts["Config"]
    assert host["Memory"] == host["MemorySwap"] == SPEC.container_mb << 20
    assert host["PidsLimit"] == QUICK.processes + 3
    assert host["NanoCpus"] == 1_000_000_000
    assert (host["NetworkMode"], host["ReadonlyRootfs"], host["AutoRemove"]) == ("none", True, True)
    assert (host["CapDrop"], host["CapAdd"], host["Privileged"]) == (["ALL"], None, False)
    assert host["SecurityOpt"][0] == "no-new-privileges"
    assert "io_uring_setup" in host["SecurityOpt"][1]
    assert {"/proc/kcore", "/proc/1/stat", "/sys/class"} <= set(host["MaskedPaths"])
    assert int(config["User"].split(":")[0]) >= 60_000
    assert config["Labels"][owner.APP] == "1"
    sandbox.release("restrictions")


def test_a_container_that_is_killed_while_busy_costs_a_retry(sandbox: DockerSandbox, engine: Engine) -> None:
    sandbox.run(script_job(""))
    results = []
    runner = threading.Thread(
        target=lambda: results.append(sandbox.run(script_job("import time; time.sleep(1); print('done')")))
    )
    runner.start()
    time.sleep(0.5)
    _kill(engine, containers_below(sandbox) - sandbox.pool.ready)
    runner.join(30)
    assert [(result.status, result.output) for result in results] == [(Status.OK, "done\n")]


def test_containers_that_are_killed_while_idle_cost_nothing(data_root: Path, engine: Engine) -> None:
    """Even if all are killed, and jobs have one attempt only."""
    require("docker")
    settings = DockerSettings(container_per="episode", spares=3)
    with DockerSandbox(data_root, 1, (), attempts=1, settings=settings) as sandbox:
        for _ in range(3):
            sandbox.run(script_job(""))
        sandbox.run(leased("print(1)", "episode"))
        assert _soon(lambda: len(sandbox.pool.ready) >= 3, 20)
        for lease in ("episode", "", ""):
            _kill(engine, sandbox.pool.ready)
            result = sandbox.run(leased("print(1)", lease))
            assert (result.status, result.output) == (Status.OK, "1\n"), result


def test_a_container_ends_by_itself(engine: Engine) -> None:
    container = Container(engine, f"mlagent-test-{os.getpid()}", SPEC, 1, life_seconds=2)
    container.start(DockerSettings(), 0, ())
    assert not container.can_serve(1)  # too little time is left
    try:
        assert _names(engine, container.name)
        assert _soon(lambda: not _names(engine, container.name), 8)
    finally:
        container.close()


def test_nothing_outlives_a_trainer_that_is_killed(data_root: Path, engine: Engine) -> None:
    program = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from pathlib import Path
from sandboxes import Limits, open_backend, script_job
sandbox = open_backend("docker", Path({str(data_root)!r}), preload=())
sandbox.run(script_job(""))
while not sandbox.pool.ready:
    pass
print(sandbox.pool.name, flush=True)
sandbox.run(script_job("import os, time\\nos.fork() or os.setsid()\\ntime.sleep(19)", Limits(open_files=99)))
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as trainer:
        assert trainer.stdout is not None
        name = trainer.stdout.readline().strip()
        # One is busy, and another is idle because it has other limits.
        time.sleep(0.5)
        assert _soon(lambda: len(_running(engine, name)) == 2, 10)
        trainer.kill()
    assert _soon(lambda: not _names(engine, name), 10)


def test_reaper_removes_abandoned_containers_and_no_others(engine: Engine, sandbox: DockerSandbox) -> None:
    """The containers were created but not started, as if their trainer had died in between."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        theirs = {**owner.labels(60), f"{owner.APP}.owner": owner.process_identity(process.pid)}
        elsewhere = {**owner.labels(60), f"{owner.APP}.owner": f"another-boot/1/{process.pid}/1"}
        labels = {
            "theirs": theirs,
            "elsewhere": elsewhere,
            "overdue": {**elsewhere, f"{owner.APP}.deadline": "1"},
            "unlabelled": {},
        }
        names = {kind: f"mlagent-test-{os.getpid()}-{kind}" for kind in labels}
        try:
            for kind, name in names.items():
                engine.call(
                    "create",
                    lambda client, kind=kind, name=name: client.create_container(
                        DockerSettings().image, ["true"], name=name, labels=labels[kind]
                    ),
                )
            sandbox.run(script_job(""))
            # The idle ones, which may still be starting.
            assert _soon(lambda: containers_below(sandbox) & sandbox.pool.ready, 10)
            ours = containers_below(sandbox) & sandbox.pool.ready
            assert reaper.reap(engine) == [names["overdue"]]
            assert ours <= containers_below(sandbox)
            process.kill()
            process.wait()
            assert reaper.reap(engine) == [names["theirs"]]
            assert _names(engine, names["elsewhere"])
            assert _names(engine, names["unlabelled"])
        finally:
            for name in names.values():
                Container(engine, name, SPEC, 1, 1).close()


def test_counts_children_that_the_oom_killer_killed(data_root: Path, engine: Engine) -> None:
    """By the kernel, not by our own monitor: the container gets less memory than the job's limit."""
    source = """
import mmap, os
child = os.fork()
if child == 0:
    mmap.mmap(-1, 200 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE)
    os._exit(0)
print(os.waitpid(child, 0)[1])
"""
    with open_backend("docker", data_root, workers=1, preload=()) as sandbox:
        assert isinstance(sandbox, DockerSandbox)
        assert sandbox.run(leased(source, "hungry")).output == "0\n"
        less = {"mem_limit": "64m", "memswap_limit": "64m"}
        for name in sandbox.pool.ready:
            engine.call("update", lambda client, name=name: client.update_container(name, **less))
        result = sandbox.run(leased(source, "hungry"))
        assert (result.status, result.output, result.oom_kills) == (Status.OK, "9\n", 1)
        assert sandbox.run(leased("", "hungry")).oom_kills == 0


def test_a_job_with_a_gpu_has_it_to_itself_and_unlimited_address_space() -> None:
    """Tests the request to the engine, since there is no GPU here."""
    arguments = create_arguments(
        DockerSettings(gpus=("3",), runtime="runsc"), dataclasses.replace(SPEC, gpu="3"), 0, ["worker"], {}
    )
    [request] = arguments["host_config"]["DeviceRequests"]
    assert (request["DeviceIDs"], request["Capabilities"], request["Count"]) == (["3"], [["gpu"]], 0)
    assert arguments["host_config"]["Runtime"] == "runsc"
    bodies = []

    class Worker:
        def run(self, body: dict[str, object], *_: object) -> tuple[dict[str, bool], dict[str, bytes]]:
            bodies.append(body)
            return {"ran": False}, {}

    for limited in (True, False):
        run_job(script_job(""), "", "", 1, lambda: contextlib.nullcontext(Worker()), limited)
    assert [body["limit_address_space"] for body in bodies] == [True, False]


def test_reports_what_an_engine_lacks(data_root: Path, tmp_path: Path) -> None:
    require("docker")
    refused = {
        "no image 'nothing:0': build it with": DockerSettings(image="nothing:0"),
        "does not know the runtime 'runsc-of-mine'": DockerSettings(runtime="runsc-of-mine"),
        "3 workers need a GPU each, and there are 1": DockerSettings(gpus=("0",)),
    }
    for message, settings in refused.items():
        with pytest.raises(SandboxUnavailableError, match=message):
            DockerSandbox(data_root, workers=3, settings=settings)
    with (
        open_backend("docker", data_root, preload=()) as opened,
        pytest.raises(SandboxUnavailableError, match=r"larger than the host .*lower the task's"),
    ):
        opened.run(script_job("", dataclasses.replace(QUICK, memory_mb=1 << 24)))


def test_reports_a_full_disk(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require("docker")
    full = shutil.disk_usage(data_root)._replace(free=5 << 20)
    monkeypatch.setattr("mlagent_jax.sandbox.containers.checks.shutil.disk_usage", lambda _: full)
    with pytest.raises(SandboxUnavailableError, match=r"has 5 MB left .*docker system prune"):
        DockerSandbox(data_root)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (
            "unix://{}/docker.sock",
            r"No engine answers at unix://\S* \(it could not .*: No such file or directory\): start it",
        ),
        ("tcp://127.0.0.1:1", r"\(it could not report its version: Connection refused\): start it"),
        ("127.0.0.1:x", r"addresses begin with unix://, tcp:// or ssh://"),
    ],
)
def test_reports_that_no_engine_answers(data_root: Path, tmp_path: Path, address: str, message: str) -> None:
    settings = DockerSettings(engines=(address.format(tmp_path),))
    with pytest.raises(SandboxUnavailableError, match=message):
        DockerSandbox(data_root, settings=settings)
    assert not list(tmp_path.iterdir())


def test_reports_missing_permission_for_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's error is simulated, because root may connect to every socket."""

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("socket.socket.connect", refuse)
    engine = Engine("unix:///run/docker.sock", 5.0, 1)
    with pytest.raises(SandboxUnavailableError, match=r": Permission denied\): add this user to the group"):
        check_engine(engine, DockerSettings())
    engine.close()


def test_engine_calls_have_a_deadline_and_are_limited_in_number() -> None:
    engine = Engine("", 0.3, 2)
    engine._apply = lambda function: function(None)  # type: ignore[method-assign, assignment]
    peak, running = 0, 0
    lock = threading.Lock()

    def slow(_: object) -> None:
        nonlocal peak, running
        with lock:
            running += 1
            peak = max(peak, running)
        time.sleep(0.6)
        with lock:
            running -= 1

    def ask() -> None:
        with pytest.raises(EngineError, match=r"took more than 0\.3 s to wait"):
            engine.call("wait", slow)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert peak == 2
    assert engine.breaker.is_open
    engine.close()


def _kill(engine: Engine, names: set[str]) -> None:
    for name in names:
        try:
            engine.call("kill", lambda client, name=name: client.kill(name))
        except EngineError as error:  # it is being started or removed
            assert error.is_refusal


def _names(engine: Engine, prefix: str) -> list[str]:
    listed = engine.call("list", lambda client: client.containers(all=True, filters={"name": prefix}))
    return [entry["Id"] for entry in listed]


def _running(engine: Engine, prefix: str) -> list[str]:
    listed = engine.call("list", lambda client: client.containers(filters={"name": prefix}))
    return [entry["Id"] for entry in listed]


def _soon(condition: object, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.05)
    return False

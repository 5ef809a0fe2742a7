"""Helpers for tests of sandboxes."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from mlagent_jax.sandbox.bubblewrap import BubblewrapSandbox
from mlagent_jax.sandbox.containers.checks import check_engine
from mlagent_jax.sandbox.containers.engine import Engine
from mlagent_jax.sandbox.containers.reaper import list_containers
from mlagent_jax.sandbox.containers.settings import DockerSettings
from mlagent_jax.sandbox.docker import DockerSandbox
from mlagent_jax.sandbox.interface import Job, Limits, Sandbox, SandboxUnavailableError
from mlagent_jax.sandbox.open import why_not_bubblewrap
from mlagent_jax.sandbox.pool import PRELOAD
from mlagent_jax.sandbox.process import ProcessSandbox

QUICK = Limits(
    wall_seconds=20,
    cpu_seconds=20,
    memory_mb=768,
    processes=24,
    workspace_mb=8,
    workspace_files=200,
    output_kb=16,
)

# A loopback address other than 127.0.0.1, which Ray would replace with the machine's outer address.
RAY_NODE = {
    "num_cpus": 2,
    "memory": 4 << 30,
    "object_store_memory": 80 << 20,
    "node_ip_address": "127.0.0.2",
    "include_dashboard": False,
}

# Tests start a container for every job or two. With all modules of PRELOAD, they would mostly wait for imports.
FEW_MODULES = ("numpy",)


@dataclass(frozen=True)
class Host:
    """A sandbox and its surroundings.

    secret: a text in the host's environment, in the labels and in another task's data.
    canary: a file of the host that nothing may change.
    data_dir: the data of the task whose scripts run.
    workers: the sandbox's processes below this one while it is idle.
    others: processes below this one that existed before, and may end.
    """

    sandbox: Sandbox
    secret: str
    canary: Path
    data_dir: Path
    workers: set[int]
    others: set[int]


def open_backend(
    name: str, data_root: Path, workers: int = 1, preload: Sequence[str] = PRELOAD
) -> BubblewrapSandbox | ProcessSandbox | DockerSandbox:
    """Opens a backend by name; see `require`."""
    require(name)
    backends = {"bubblewrap": BubblewrapSandbox, "process": ProcessSandbox, "docker": DockerSandbox}
    return backends[name](data_root, workers, preload)


def require(name: str) -> None:
    """Skips the test if a backend cannot work here, or fails if MLAGENT_REQUIRE lists what it needs."""
    if name == "process":
        return
    needed, reason = {
        "bubblewrap": ("namespaces", why_no_namespaces),
        "docker": ("docker", why_no_docker),
    }[name]
    if not reason():
        return
    if needed in os.environ.get("MLAGENT_REQUIRE", ""):
        pytest.fail(f"MLAGENT_REQUIRE asks for {needed}, which is not here: {reason()}")
    pytest.skip(f"no {needed} here: {reason()}")


@functools.cache
def why_no_namespaces() -> str:
    """Why bubblewrap does not work on this host, or "" if it does."""
    return why_not_bubblewrap(Path(__file__).parent)


@functools.cache
def why_no_docker() -> str:
    """Why containers cannot be started, or "" if they can. DOCKER_HOST names the engine."""
    engine = Engine("", 10.0, 1)
    try:
        check_engine(engine, DockerSettings())
    except SandboxUnavailableError as error:
        return str(error)
    finally:
        engine.close()
    return ""


def script_job(source: str, limits: Limits = QUICK, data_dir: Path | None = None) -> Job:
    """A job of one script, `train.py`."""
    return Job({"train.py": source.encode()}, "train.py", data_dir, "digest" if data_dir else "", limits)


def descendants(pid: int | None = None) -> set[int]:
    """All living processes below `pid`, this one by default."""
    found: set[int] = set()
    unvisited = [pid or os.getpid()]
    while unvisited:
        # Any of them may end at any moment.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for task in list(Path(f"/proc/{unvisited.pop()}/task").iterdir()):
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    children = {int(child) for child in (task / "children").read_text().split()}
                    unvisited += children - found
                    found |= children
    return found


def settled_descendants() -> set[int]:
    """The living processes below this one, once they have not changed for a second."""
    seen, since = descendants(), time.monotonic()
    while time.monotonic() - since < 1:
        time.sleep(0.05)
        if (now := descendants()) != seen:
            seen, since = now, time.monotonic()
    return seen


def containers_below(sandbox: Sandbox) -> set[str]:
    """The names of the containers of `sandbox` that its engine lists."""
    assert isinstance(sandbox, DockerSandbox)
    engine = Engine("", 30.0, 1)
    try:
        names = {container.name for container in list_containers(engine)}
    finally:
        engine.close()
    return {name for name in names if name.startswith(sandbox.pool.name)}


def assert_containers_settle(sandbox: Sandbox) -> None:
    """Fails unless the engine soon lists the idle containers of `sandbox` and no others."""
    assert isinstance(sandbox, DockerSandbox)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (
        containers_below(sandbox) != sandbox.pool.ready or not sandbox.pool.ready
    ):
        time.sleep(0.05)
    assert containers_below(sandbox) == sandbox.pool.ready


def assert_settles(expected: set[int], others: Collection[int] = ()) -> None:
    """Fails unless the processes below this one, without `others`, are soon equal to `expected`."""
    deadline = time.monotonic() + 60
    while (alive := descendants().difference(others)) != expected and time.monotonic() < deadline:
        time.sleep(0.01)
    assert alive == expected, f"left: {[_command(pid) for pid in alive - expected]}, gone: {expected - alive}"


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except (FileNotFoundError, ProcessLookupError):
        return f"{pid}, ended since"

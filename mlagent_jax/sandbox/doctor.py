"""Tests which guarantees hold on this host, by running small programs that try to break them."""

from __future__ import annotations

import enum
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mlagent_jax.errors import UserError
from mlagent_jax.sandbox import seccomp
from mlagent_jax.sandbox.bubblewrap import BubblewrapSandbox
from mlagent_jax.sandbox.containers import checks
from mlagent_jax.sandbox.containers.engine import Engine
from mlagent_jax.sandbox.containers.settings import DockerSettings
from mlagent_jax.sandbox.docker import DockerSandbox
from mlagent_jax.sandbox.interface import Job, Limits, Sandbox, Status
from mlagent_jax.sandbox.open import why_not_bubblewrap

_MIN_FREE_GB = 5
_PROBE_LIMITS = Limits(
    wall_seconds=5, cpu_seconds=5, memory_mb=256, processes=8, workspace_mb=4, workspace_files=32
)


class Verdict(enum.StrEnum):
    """FAIL: a guarantee does not hold. CAUTION: it holds, but could be stronger."""

    PASS = "PASS"
    CAUTION = "CAUTION"
    FAIL = "FAIL"


@dataclass(frozen=True)
class Finding:
    """What was tested, the verdict, and details in words."""

    subject: str
    verdict: Verdict
    detail: str


def examine_host() -> Iterator[Finding]:
    """Tests what every backend depends on."""
    release = platform.release()
    modern = tuple(int(part) for part in release.split("-")[0].split(".")[:2]) >= (5, 14)
    yield Finding(
        "kernel",
        Verdict.PASS if modern else Verdict.CAUTION,
        release
        if modern
        else f"{release}: before 5.14, bubblewrap bounds processes by periodic checks, not by a limit",
    )
    actions = Path("/proc/sys/kernel/seccomp/actions_avail")
    if not actions.exists():
        yield Finding("seccomp", Verdict.FAIL, "not in this kernel: use one with CONFIG_SECCOMP_FILTER")
    elif not seccomp.build_filter():
        yield Finding("seccomp", Verdict.FAIL, f"there is no filter for {platform.machine()}")
    else:
        yield Finding("seccomp", Verdict.PASS, f"filter for {platform.machine()}")
    second = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    yield Finding("control groups", Verdict.PASS, "version 2" if second else "version 1")
    swaps = Path("/proc/swaps").read_text().splitlines()[1:]
    yield Finding(
        "swap",
        Verdict.CAUTION if swaps else Verdict.PASS,
        "a script's memory may be swapped out, so times vary" if swaps else "none",
    )
    yield _disk("disk for temporary files", Path(tempfile.gettempdir()))


def examine_bubblewrap() -> Iterator[Finding]:
    """Tests the default backend."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        reason = why_not_bubblewrap(Path(folder))
        if reason:
            yield Finding("bubblewrap", Verdict.FAIL, reason)
            return
        with BubblewrapSandbox(Path(folder), workers=1, preload=()) as sandbox:
            yield from _probe(sandbox)


def examine_docker(settings: DockerSettings) -> Iterator[Finding]:
    """Tests each engine of `settings`."""
    for address in settings.engines:
        engine = Engine(address, settings.call_seconds, settings.calls)
        try:
            facts = checks.check_engine(engine, settings)
        except UserError as error:
            yield Finding("docker", Verdict.FAIL, str(error))
            continue
        finally:
            engine.close()
        yield Finding(
            f"engine {engine.label}",
            Verdict.PASS,
            f"Docker {facts['ServerVersion']}, storage {facts['Driver']}, "
            f"control groups version {facts.get('CgroupVersion', '1')}",
        )
        if engine.label.startswith("tcp://") and not os.environ.get("DOCKER_TLS_VERIFY"):
            yield Finding(
                "connection to the engine",
                Verdict.CAUTION,
                "tcp:// without TLS: whoever reaches the port is root; set DOCKER_TLS_VERIFY and DOCKER_CERT_PATH",
            )
        remapped = any("userns" in option for option in facts.get("SecurityOptions") or ())
        yield Finding(
            "user namespaces of containers",
            Verdict.PASS if remapped else Verdict.CAUTION,
            "on" if remapped else "off: a kernel exploit would run as a user of the host; see `userns-remap`",
        )
        root = Path(facts["DockerRootDir"])
        if root.exists():
            yield _disk("disk of the engine", root)
        with tempfile.TemporaryDirectory() as folder:
            Path(folder).chmod(0o755)
            here = DockerSettings(engines=(address,), image=settings.image, runtime=settings.runtime)
            with DockerSandbox(Path(folder), workers=1, preload=(), settings=here) as sandbox:
                yield from _probe(sandbox)
                exposed = sandbox.pool.exposed
                yield Finding(
                    "docker: containers for all episodes of a task",
                    Verdict.CAUTION if exposed else Verdict.PASS,
                    f"one for each episode instead, which takes longer: a job could read {', '.join(exposed[:4])}"
                    if exposed
                    else "nothing passes from one job to the next",
                )


_ISOLATION = """
import os, socket
def refused(action):
    try:
        action()
    except OSError:
        return True
status = dict(line.split(":\\t") for line in open("/proc/self/status").read().splitlines())
print("capabilities", all(int(status[f"Cap{kind}"], 16) == 0 for kind in ("Prm", "Eff", "Bnd")))
print("privileges", status["NoNewPrivs"] == "1" and os.getuid() != 0)
print("seccomp", status["Seccomp"] == "2" and refused(lambda: os.memfd_create("x")))
print("network", refused(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(("192.0.2.1", 9))))
print("files", all(refused(lambda place=place: open(place + "/x", "w")) for place in ("/", "/usr", "/etc", "/dev")))
others = {int(name) for name in os.listdir("/proc") if name.isdigit()} - {os.getpid()}
# In a container, scripts are forks of a second process beside process 1.
print("neighbours", 1 in others and len(others) <= (2 if os.path.exists("/.dockerenv") else 1))
print("supervisor", all(refused(lambda pid=pid: open(f"/proc/{pid}/environ").read()) for pid in others))
print("kernel settings", refused(lambda: os.open("/proc/sys/kernel/core_pattern", os.O_WRONLY)))
"""
_LIMITS: dict[str, tuple[str, Status]] = {
    "memory": ("x = [bytearray(1 << 24) for _ in range(64)]", Status.OOM),
    "processes": (
        "import os, time\nfor _ in range(20): os.fork() or (time.sleep(3), os._exit(0))",
        Status.PIDS,
    ),
    "disk": ("open('x', 'wb').write(bytes(3 << 20)); open('y', 'wb').write(bytes(3 << 20))", Status.DISK),
    "time": ("while True: pass", Status.TIMEOUT),
}


def _probe(sandbox: Sandbox) -> Iterator[Finding]:
    """Runs programs that try what must not work."""

    def run(source: str, limits: Limits = _PROBE_LIMITS) -> tuple[Status, str]:
        result = sandbox.run(Job({"probe.py": source.encode()}, "probe.py", limits=limits))
        return result.status, result.error or result.output

    status, output = run(_ISOLATION)
    if status is not Status.OK:
        yield Finding(
            sandbox.name, Verdict.FAIL, f"a test program ended as {status}: {output.strip()[-300:]}"
        )
        return
    lines = [line.rpartition(" ") for line in output.splitlines()]
    broken = [name for name, _, holds in lines if holds != "True"]
    yield Finding(
        f"{sandbox.name}: isolation",
        Verdict.FAIL if broken else Verdict.PASS,
        f"does not hold for {', '.join(broken)}" if broken else ", ".join(name for name, _, _ in lines),
    )
    for name, (source, expected) in _LIMITS.items():
        limits = Limits(**{**vars(_PROBE_LIMITS), "wall_seconds": 1.0}) if name == "time" else _PROBE_LIMITS
        status, _ = run(source, limits)
        verdict = Verdict.PASS if status is expected else Verdict.FAIL
        yield Finding(f"{sandbox.name}: limit of {name}", verdict, f"ended as {status}")


def _disk(subject: str, path: Path) -> Finding:
    free = shutil.disk_usage(path).free >> 30
    if free < _MIN_FREE_GB:
        return Finding(
            subject, Verdict.FAIL, f"{free} GiB free at {path}: at least {_MIN_FREE_GB} are needed"
        )
    return Finding(subject, Verdict.PASS, f"{free} GiB free at {path}")


def examine(backends: tuple[str, ...], settings: DockerSettings) -> Iterator[Finding]:
    """All findings for this host and the given backends."""
    yield from examine_host()
    examinations: dict[str, Callable[[], Iterator[Finding]]] = {
        "bubblewrap": examine_bubblewrap,
        "docker": lambda: examine_docker(settings),
    }
    for backend in backends:
        yield from examinations[backend]()

"""Hostile and faulty programs: each ends as expected, and does no damage outside its job."""

from __future__ import annotations

import dataclasses
import os
import platform
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hostile_programs import CONFUSION, ESCAPES, EXHAUSTION, Hostile
from sandboxes import (
    FEW_MODULES,
    QUICK,
    Host,
    assert_containers_settle,
    assert_settles,
    open_backend,
    script_job,
    settled_descendants,
)

from mlagent_jax.sandbox.interface import Result, Status
from mlagent_jax.sandbox.pool import PRELOAD

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="system calls by x86-64 numbers")

# What programs print if something worked that must not.
_WORKED = ("SUCCEEDED", "OPENED", "RAISED", "FOUND", "WROTE")


def run(host: Host, program: Hostile) -> Result:
    """Runs `program` and checks what must hold after every program."""
    limits = dataclasses.replace(QUICK, wall_seconds=program.wall_seconds)
    begun = time.monotonic()
    result = host.sandbox.run(script_job(program.source, limits, host.data_dir))
    assert time.monotonic() - begun <= program.wall_seconds + 60
    assert result.status in program.statuses, (result.status, result.error, result.output[-2000:])
    expected = program.prints_in_docker if host.sandbox.name == "docker" else None
    assert (program.prints if expected is None else expected) in result.output
    assert not [word for word in _WORKED if word in result.output], result.output
    assert len(result.output) <= limits.output_kb << 10
    assert sum(map(len, result.files.values())) <= limits.workspace_mb << 20
    assert_settles(host.workers, host.others)  # no process is left, and the worker has not been replaced
    assert host.canary.read_text() == "untouched"
    assert (host.data_dir / "train.csv").read_text() == "id\n1\n"
    if host.sandbox.name == "docker":
        assert_containers_settle(host.sandbox)
    after = host.sandbox.run(
        script_job("import numpy\nprint(open('data/train.csv').read())", data_dir=host.data_dir)
    )
    assert (after.status, after.output) == (Status.OK, "id\n1\n\n")
    return result


def _each(programs: tuple[Hostile, ...]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("program", programs, ids=lambda program: program.name.replace(" ", "-"))


@_each(EXHAUSTION)
def test_exhaustion(host: Host, program: Hostile) -> None:
    free = os.statvfs(host.canary.parent).f_bavail
    run(host, program)
    assert abs(os.statvfs(host.canary.parent).f_bavail - free) * 4096 < 1 << 30


@_each(ESCAPES)
def test_escape(host: Host, program: Hostile) -> None:
    result = run(host, program)
    assert "late" not in result.files


@_each(CONFUSION)
def test_confusion(host: Host, program: Hostile) -> None:
    result = run(host, program)
    assert all(name.isprintable() for name in result.files)
    assert not {"submission.csv", "zero", "root", "loop"} & set(result.files)


def test_finds_no_secret(host: Host) -> None:
    """Searches every file that can be opened for labels, other tasks' data and the host's environment."""
    source = f"""
import os, sys
secret = {host.secret[::-1]!r}[::-1].encode()
skipped = ("/usr", "/proc/", sys.prefix, sys.base_prefix)
looked = 0
def look(path):
    global looked
    try:
        with open(path, "rb") as file:
            looked += 1
            if secret in file.read(1 << 20):
                print("FOUND", path)
    except OSError:
        pass
for top, folders, names in os.walk("/"):
    folders[:] = [name for name in folders if not os.path.join(top, name).startswith(skipped)]
    for name in names:
        if not top.startswith("/dev"):
            look(os.path.join(top, name))
for pid in os.listdir("/proc"):
    if pid.isdigit():
        for name in ("environ", "cmdline", "mounts", "mountinfo"):
            look(f"/proc/{{pid}}/{{name}}")
        for folder in ("fd", "root", "cwd"):
            try:
                print(pid, folder, len(os.listdir(f"/proc/{{pid}}/{{folder}}"))) if pid == "1" else None
            except OSError:
                pass
print("SECRET" in os.environ, sorted(os.environ))
print("looked", looked > 5)
"""
    result = run(host, Hostile("search", source, (Status.OK,)))
    assert result.output.startswith("False ['HOME', '")
    assert result.output.endswith("looked True\n")
    assert host.secret not in result.output
    assert "SECRET" not in result.output
    assert "HOSTNAME" not in result.output


def test_sees_no_host_paths(host: Host) -> None:
    """Neither the user's home nor this repository nor the temporary folder, except for the interpreter itself."""
    repository = Path(__file__).parents[2]
    # An image has its own folders of these names.
    common = () if host.sandbox.name == "docker" else ("/var", "/home", "/opt")
    places = [str(place) for place in (Path.home(), repository, host.canary.parent, *common)]
    source = f"""
import os, sys
ours = {{os.path.realpath(prefix) for prefix in (sys.prefix, sys.base_prefix)}}
for place in {places}:
    for top, folders, names in os.walk(place):
        folders[:] = [name for name in folders if os.path.realpath(os.path.join(top, name)) not in ours]
        for name in names:
            print("FOUND", os.path.join(top, name))
print("looked")
"""
    assert any(place.is_file() for place in repository.iterdir())
    assert run(host, Hostile("paths", source, (Status.OK,))).output == "looked\n"


@pytest.mark.slow
def test_many_jobs_of_all_kinds_on_two_workers(host: Host) -> None:
    """Every job gets its own result, whatever ran before it on the same worker, and no process is left."""
    hostile = [program for program in (*EXHAUSTION, *ESCAPES, *CONFUSION) if program.wall_seconds > 2]
    jobs: list[Hostile] = []
    for number in range(90):
        harmless = Hostile(f"{number}", f"print({number})", (Status.OK,), f"{number}\n")
        jobs.append(hostile[number // 3 % len(hostile)] if number % 3 == 0 else harmless)
    before = settled_descendants()
    preload = FEW_MODULES if host.sandbox.name == "docker" else PRELOAD
    pool = open_backend(host.sandbox.name, host.data_dir.parent, workers=2, preload=preload)
    with pool as sandbox, ThreadPoolExecutor(6) as threads:
        results = list(
            threads.map(lambda job: sandbox.run(script_job(job.source, data_dir=host.data_dir)), jobs)
        )
    for program, result in zip(jobs, results, strict=True):
        assert result.status in program.statuses, (program.name, result)
        expected = program.prints_in_docker if host.sandbox.name == "docker" else None
        assert (program.prints if expected is None else expected) in result.output
    assert_settles(before)


@pytest.mark.parametrize(
    "name",
    [
        "thread bomb",
        "memory hog",
        "one array too large",
        "memory hog in children",
        "disk filler",
        "disk filler in pieces",
        "output without end",
        "sleeper",
        "deaf to signals",
        "waits for input",
        "daemon",
        "kills itself",
        "links instead of files",
        "writes to every descriptor",
    ],
)
def test_without_isolation(unisolated: Host, name: str) -> None:
    """The fallback contains what our own scripts could do by mistake."""
    program = next(program for program in (*EXHAUSTION, *ESCAPES, *CONFUSION) if program.name == name)
    limits = dataclasses.replace(QUICK, wall_seconds=program.wall_seconds)
    result = unisolated.sandbox.run(script_job(program.source, limits, unisolated.data_dir))
    # Without a file system of its own, a workspace may fill up between two checks. That is found at the end.
    late = {Status.OUTPUT_LIMIT} if Status.DISK in program.statuses else set()
    assert result.status in {*program.statuses, *late}, (result.status, result.error, result.output[-2000:])
    assert not [word for word in _WORKED if word in result.output], result.output
    assert "late" not in result.files
    assert not {"submission.csv", "zero", "root", "loop"} & set(result.files)
    assert_settles(unisolated.workers, unisolated.others)
    assert unisolated.sandbox.run(script_job("print(1)")).output == "1\n"

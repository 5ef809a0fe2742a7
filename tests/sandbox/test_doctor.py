"""The commands of `experiments.sandbox`, and a sandbox that fails too often."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from fakes import PlainSandbox
from sandboxes import require, script_job

from mlagent_jax.sandbox.circuit_breaker import CircuitBreaker
from mlagent_jax.sandbox.guard import GuardedSandbox
from mlagent_jax.sandbox.interface import Result, SandboxUnavailableError, Status


def doctor(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "experiments.sandbox", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])


@pytest.mark.parametrize("backend", ["bubblewrap", "docker"])
def test_doctor_finds_that_every_guarantee_holds(backend: str) -> None:
    require(backend)
    found = doctor("doctor", backend)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "FAIL" not in found.stdout
    for guarantee in ("isolation", "limit of memory", "limit of processes", "limit of disk", "limit of time"):
        assert f"PASS    {backend}: {guarantee}" in found.stdout


def test_doctor_reports_what_does_not_work(tmp_path: Path) -> None:
    found = doctor("doctor", "docker", f"--engine=unix://{tmp_path}/none.sock")
    assert found.returncode == 1
    assert "FAIL    docker" in found.stdout
    assert "start it" in found.stdout


def test_gc_reports_what_it_did(tmp_path: Path) -> None:
    missing = doctor("gc", f"--engine=unix://{tmp_path}/none.sock")
    assert missing.returncode == 1
    assert missing.stderr.splitlines()[-1].startswith("error: ")
    require("docker")
    assert ": removed " in doctor("gc").stdout


def test_a_sandbox_that_fails_repeatedly_is_given_up() -> None:
    fault, good = Result(Status.SANDBOX_ERROR, error="no worker"), Result(Status.OK, 0)
    now = 0.0
    inner = PlainSandbox([fault, fault, good, fault, fault, fault, good])
    guarded = GuardedSandbox(inner, CircuitBreaker(3, reset_seconds=60, clock=lambda: now))
    seen = [guarded.run(script_job("")).status for _ in range(5)]
    assert seen == [Status.SANDBOX_ERROR, Status.SANDBOX_ERROR, Status.OK, *[Status.SANDBOX_ERROR] * 2]
    with pytest.raises(SandboxUnavailableError, match=r"repeatedly \(no worker\).*doctor"):
        guarded.run(script_job(""))
    with pytest.raises(SandboxUnavailableError, match="not tried again"):
        guarded.run(script_job(""))
    now = 60.0
    assert guarded.run(script_job("")).status is Status.OK
    assert guarded.errors == 5

"""Which backend is chosen on a host, and what is refused."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
from sandboxes import QUICK, open_backend, require, script_job

from mlagent_jax.errors import UserError
from mlagent_jax.sandbox.interface import SandboxUnavailableError, Status
from mlagent_jax.sandbox.open import open_sandbox


@pytest.fixture
def no_namespaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces bubblewrap with one that fails like the real one where namespaces are forbidden."""
    fake = tmp_path / "bin" / "bwrap"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho 'bwrap: setting up uid map: Permission denied' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setattr("mlagent_jax.sandbox.confined.find_bwrap", lambda: fake)
    monkeypatch.setattr("mlagent_jax.sandbox.bubblewrap.os.geteuid", lambda: 1000)


def test_isolates_where_it_can(data_root: Path) -> None:
    require("bubblewrap")
    with open_sandbox("auto", 1, data_root, allow_unisolated=False, writes_free_code=True) as sandbox:
        assert (sandbox.name, sandbox.isolated) == ("bubblewrap", True)
        assert sandbox.run(script_job("print(1)")).status is Status.OK


@pytest.mark.usefixtures("no_namespaces")
def test_runs_our_own_edits_without_isolation_and_warns(
    data_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with open_sandbox("auto", 1, data_root, allow_unisolated=False, writes_free_code=False) as sandbox:
        assert (sandbox.name, sandbox.isolated) == ("process", False)
        assert sandbox.run(script_job("print(1)")).output == "1\n"
    warnings = [
        record.getMessage() for record in caplog.records if "WITHOUT ISOLATION" in record.getMessage()
    ]
    assert len(warnings) == 1
    assert "setting up uid map: Permission denied" in warnings[0]
    assert "use the network" in warnings[0]


@pytest.mark.usefixtures("no_namespaces")
def test_refuses_free_code_without_isolation(data_root: Path) -> None:
    with pytest.raises(SandboxUnavailableError, match="user namespaces") as refusal:
        open_sandbox("auto", 1, data_root, allow_unisolated=False, writes_free_code=True)
    assert isinstance(refusal.value, UserError)
    assert "allow_unisolated=True" in str(refusal.value)
    with pytest.raises(SandboxUnavailableError, match="does not work here"):
        open_sandbox("bubblewrap", 1, data_root, allow_unisolated=True, writes_free_code=False)
    with open_sandbox("auto", 1, data_root, allow_unisolated=True, writes_free_code=True) as sandbox:
        assert not sandbox.isolated


def test_refuses_free_code_in_a_plain_process(data_root: Path) -> None:
    with pytest.raises(SandboxUnavailableError, match="allow_unisolated=True"):
        open_sandbox("process", 1, data_root, allow_unisolated=False, writes_free_code=True)


def test_refuses_invalid_arguments(data_root: Path) -> None:
    with pytest.raises(
        ValueError, match="unknown sandbox backend 'docker-ish': choose one of auto, bubblewrap"
    ):
        open_sandbox("docker-ish", 1, data_root, allow_unisolated=False, writes_free_code=False)
    with pytest.raises(FileNotFoundError, match="missing"):
        open_sandbox("auto", 1, data_root / "missing", allow_unisolated=False, writes_free_code=False)
    with pytest.raises(ValueError, match="at least one worker"):
        open_sandbox("process", 0, data_root, allow_unisolated=False, writes_free_code=False)


def test_names_data_that_only_root_can_read(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require("bubblewrap")
    if os.geteuid() != 0:
        pytest.skip("only root's scripts run as another user")
    hidden = data_root / "hidden"
    hidden.mkdir()
    (hidden / "train.csv").touch(0o600)
    with open_backend("bubblewrap", data_root, preload=()) as sandbox:
        with pytest.raises(SandboxUnavailableError, match=r"train\.csv .*chmod -R o\+rX"):
            sandbox.run(script_job("open('data/train.csv')", data_dir=hidden))
        (hidden / "train.csv").chmod(0o644)
        assert sandbox.run(script_job("open('data/train.csv')", data_dir=hidden)).status is Status.OK
    hidden.chmod(0o700)
    with pytest.raises(SandboxUnavailableError, match=r"hidden .*chmod -R o\+rX"):
        open_backend("bubblewrap", hidden)
    (hidden / "train.csv").unlink()
    hidden.rmdir()


@pytest.mark.parametrize("backend", ["bubblewrap", "process"])
def test_a_job_that_is_larger_than_the_host_is_refused(backend: str, data_root: Path) -> None:
    with (
        open_backend(backend, data_root, preload=()) as opened,
        pytest.raises(
            SandboxUnavailableError, match=r"A job of 16777224 MB .* larger than this host .*: lower"
        ),
    ):
        opened.run(script_job("", dataclasses.replace(QUICK, memory_mb=1 << 24)))

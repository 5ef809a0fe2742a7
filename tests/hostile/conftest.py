"""Sandboxes next to secrets and files that scripts must not find or damage."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from sandboxes import FEW_MODULES, Host, descendants, open_backend, script_job, settled_descendants

from mlagent_jax.sandbox.interface import Status
from mlagent_jax.sandbox.pool import PRELOAD


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with a task's data and other files, which must not be found or damaged, and the secret in them."""
    secret = secrets.token_hex(16)
    root = tmp_path_factory.mktemp("prepared")
    for name, content in (
        ("public/mine/train.csv", "id\n1\n"),
        ("public/other/train.csv", secret),
        ("private/mine/labels.csv", secret),
        ("canary", "untouched"),
    ):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root, secret


@pytest.fixture(scope="session", params=["bubblewrap", "docker"])
def host(request: pytest.FixtureRequest, prepared: tuple[Path, str]) -> Iterator[Host]:
    with open_host(request.param, *prepared) as opened:
        yield opened


@pytest.fixture(scope="module")
def unisolated(prepared: tuple[Path, str]) -> Iterator[Host]:
    with open_host("process", *prepared) as opened:
        yield opened


@contextlib.contextmanager
def open_host(backend: str, root: Path, secret: str) -> Iterator[Host]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SECRET", secret)
        preload = FEW_MODULES if backend == "docker" else PRELOAD
        others = descendants()
        with open_backend(backend, root / "public", preload=preload) as sandbox:
            assert sandbox.run(script_job("")).status is Status.OK
            workers = settled_descendants() - others  # without the script's supervisor, which ends
            yield Host(sandbox, secret, root / "canary", root / "public" / "mine", workers, others)

"""One warm sandbox of each backend for all tests here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sandboxes import FEW_MODULES, open_backend

from mlagent_jax.sandbox.interface import Sandbox
from mlagent_jax.sandbox.pool import PRELOAD


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks' public folders, as a prepared data root holds them."""
    root = tmp_path_factory.mktemp("prepared") / "public"
    for task in ("mine", "other"):
        (root / task / "deep").mkdir(parents=True)
        (root / task / "train.csv").write_text(f"id,owner\n1,{task}-canary\n")
        (root / task / "deep" / "more.txt").write_text(task)
    return root


@pytest.fixture(scope="session", params=["bubblewrap", "docker", "process"])
def sandbox(request: pytest.FixtureRequest, data_root: Path) -> Iterator[Sandbox]:
    """Every backend in turn."""
    preload = FEW_MODULES if request.param == "docker" else PRELOAD
    opened = open_backend(request.param, data_root, preload=preload)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def isolated(data_root: Path) -> Iterator[Sandbox]:
    """The backend that isolates."""
    opened = open_backend("bubblewrap", data_root)
    yield opened
    opened.close()

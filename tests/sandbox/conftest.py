"""One warm sandbox per backend, shared by all tests in this folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sandboxes import FEW_MODULES, RAY_NODE, open_backend

from mlagent_jax.sandbox.interface import Sandbox
from mlagent_jax.sandbox.pool import PRELOAD
from mlagent_jax.sandbox.ray import RaySandbox


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with the public folders of two tasks."""
    root = tmp_path_factory.mktemp("prepared") / "public"
    for task in ("mine", "other"):
        (root / task / "deep").mkdir(parents=True)
        (root / task / "train.csv").write_text(f"id,owner\n1,{task}-canary\n")
        (root / task / "deep" / "more.txt").write_text(task)
    return root


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Any]:
    if "ray" not in os.environ.get("MLAGENT_REQUIRE", ""):
        pytest.skip("starts a cluster, which is slow; set MLAGENT_REQUIRE=ray to run it")
    from ray.cluster_utils import Cluster

    opened = Cluster(initialize_head=True, head_node_args=RAY_NODE)
    yield opened
    opened.shutdown()


@pytest.fixture(scope="session", params=["bubblewrap", "docker", "process", "ray"])
def sandbox(request: pytest.FixtureRequest, data_root: Path) -> Iterator[Sandbox]:
    """Every backend in turn."""
    if request.param == "ray":
        address = request.getfixturevalue("ray_cluster").address
        with RaySandbox(data_root, workers=1, address=address) as opened:
            yield opened
        return
    preload = FEW_MODULES if request.param == "docker" else PRELOAD
    with open_backend(request.param, data_root, preload=preload) as backend:
        yield backend


@pytest.fixture(scope="session")
def isolated(data_root: Path) -> Iterator[Sandbox]:
    """The backend that isolates."""
    opened = open_backend("bubblewrap", data_root)
    yield opened
    opened.close()

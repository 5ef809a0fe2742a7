"""The Ray backend on a cluster on this machine, with a node that dies while it works."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sandboxes import QUICK, RAY_NODE, require, script_job

from mlagent_jax.sandbox.interface import SandboxUnavailableError, Status
from mlagent_jax.sandbox.ray import RaySandbox


@pytest.fixture(scope="module")
def sandbox(ray_cluster: Any, data_root: Path) -> Iterator[RaySandbox]:
    with RaySandbox(data_root, workers=6, address=ray_cluster.address) as opened:
        yield opened


def test_runs_jobs_with_their_data(sandbox: RaySandbox, data_root: Path) -> None:
    source = "print(open('data/train.csv').read())\nopen('out', 'w').write('x')"
    result = sandbox.run(script_job(source, data_dir=data_root / "mine"))
    assert (result.status, result.files["out"]) == (Status.OK, b"x")
    assert "mine-canary" in result.output
    assert sandbox.run(script_job("1 / 0")).status is Status.FAILED
    with pytest.raises(ValueError, match="not a folder below"):
        sandbox.run(script_job("", data_dir=data_root.parent))


def test_runs_jobs_in_containers_of_its_nodes(ray_cluster: Any, data_root: Path) -> None:
    require("docker")
    with RaySandbox(data_root, 1, "docker", ray_cluster.address) as opened:
        source = "import os\nprint(open('data/train.csv').read(), os.path.exists('/.dockerenv'))"
        result = opened.run(script_job(source, data_dir=data_root / "mine"))
        assert result.status is Status.OK, result
        assert "mine-canary" in result.output and result.output.endswith("True\n")
        assert opened.run(script_job("1 / 0")).status is Status.FAILED


def test_a_node_that_dies_costs_a_retry(sandbox: RaySandbox, ray_cluster: Any) -> None:
    node = ray_cluster.add_node(**RAY_NODE)
    ray_cluster.wait_for_nodes()
    killer = threading.Timer(4.0, lambda: ray_cluster.remove_node(node, allow_graceful=False))
    killer.start()
    begun = time.monotonic()
    with ThreadPoolExecutor(6) as threads:
        results = list(
            threads.map(
                lambda number: sandbox.run(script_job(f"import time; time.sleep(1.5); print({number})")),
                range(16),
            )
        )
    killer.join()
    assert time.monotonic() - begun > 4  # the node died while jobs ran
    assert [(result.status, result.output) for result in results] == [
        (Status.OK, f"{number}\n") for number in range(16)
    ]


def test_another_driver_can_continue(ray_cluster: Any, sandbox: RaySandbox, data_root: Path) -> None:
    program = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from pathlib import Path
from sandboxes import script_job
from mlagent_jax.sandbox.ray import RaySandbox
sandbox = RaySandbox(Path({str(data_root)!r}), 2, address={ray_cluster.address!r})
print(sandbox.run(script_job("print('here')")).output, flush=True)
os.kill(os.getpid(), 9)
"""
    for _ in range(2):
        driver = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        assert driver.stdout.startswith("here")
    assert sandbox.run(script_job("print('still here')")).output == "still here\n"


def test_reports_that_a_node_lacks_the_data(sandbox: RaySandbox, tmp_path: Path) -> None:
    with RaySandbox(tmp_path, 1) as other:
        other._spec = other._spec._replace(data_root=str(tmp_path / "gone"))
        with pytest.raises(SandboxUnavailableError, match="lacks what a job needs"):
            other.run(script_job("", QUICK))

"""Two nodes of a Ray cluster on this machine, of which one is killed while both work."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sandboxes import QUICK, script_job

from mlagent_jax.sandbox.interface import SandboxUnavailableError, Status
from mlagent_jax.sandbox.ray import RaySandbox

pytestmark = pytest.mark.skipif(
    "ray" not in os.environ.get("MLAGENT_REQUIRE", ""),
    reason="starts a cluster, which takes a while; set MLAGENT_REQUIRE=ray to run it",
)

# Any loopback address but 127.0.0.1, which Ray takes for the machine's outer one.
_NODE = {
    "num_cpus": 2,
    "memory": 4 << 30,
    "object_store_memory": 80 << 20,
    "node_ip_address": "127.0.0.2",
    "include_dashboard": False,
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    opened = Cluster(initialize_head=True, head_node_args=_NODE)
    yield opened
    opened.shutdown()


@pytest.fixture(scope="module")
def sandbox(cluster: Any, data_root: Path) -> Iterator[RaySandbox]:
    with RaySandbox(data_root, workers=6, address=cluster.address) as opened:
        yield opened


def test_runs_jobs_with_their_data(sandbox: RaySandbox, data_root: Path) -> None:
    source = "print(open('data/train.csv').read())\nopen('out', 'w').write('x')"
    result = sandbox.run(script_job(source, data_dir=data_root / "mine"))
    assert (result.status, result.files["out"]) == (Status.OK, b"x")
    assert "mine-canary" in result.output
    assert sandbox.run(script_job("1 / 0")).status is Status.FAILED
    with pytest.raises(ValueError, match="not a folder below"):
        sandbox.run(script_job("", data_dir=data_root.parent))


def test_a_node_that_dies_costs_a_retry(sandbox: RaySandbox, cluster: Any) -> None:
    node = cluster.add_node(**_NODE)
    cluster.wait_for_nodes()
    killer = threading.Timer(4.0, lambda: cluster.remove_node(node, allow_graceful=False))
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


def test_another_driver_goes_on(cluster: Any, sandbox: RaySandbox, data_root: Path) -> None:
    program = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from pathlib import Path
from sandboxes import script_job
from mlagent_jax.sandbox.ray import RaySandbox
sandbox = RaySandbox(Path({str(data_root)!r}), 2, address={cluster.address!r})
print(sandbox.run(script_job("print('here')")).output, flush=True)
os.kill(os.getpid(), 9)
"""
    for _ in range(2):
        driver = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        assert driver.stdout.startswith("here")
    assert sandbox.run(script_job("print('still here')")).output == "still here\n"


def test_says_that_a_node_lacks_the_data(sandbox: RaySandbox, tmp_path: Path) -> None:
    with RaySandbox(tmp_path, 1) as other:
        other._opening = ("bubblewrap", str(tmp_path / "gone"), other._opening[2])
        with pytest.raises(SandboxUnavailableError, match="lacks what a job needs"):
            other.run(script_job("", QUICK))

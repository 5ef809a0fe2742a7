"""Memory that is kept causes no further page faults."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# Twice allocates and frees a block in a thread, as XLA does for a step's temporaries; prints the second time's faults.
PROGRAM = """
import resource, sys, threading
import numpy as np
from mlagent_jax.host_memory import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
faults = []

def step():
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        np.ones(2**26, np.uint8)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

thread = threading.Thread(target=step)
thread.start()
thread.join()
print(faults[1])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has a setting to keep memory")
def test_a_second_step_finds_its_memory_in_place() -> None:
    def second_faults(how: str) -> int:
        # Some kernels provide pages larger than 4 KiB, so a small number of faults alone would prove nothing.
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    assert second_faults("keep") * 10 < second_faults("default")

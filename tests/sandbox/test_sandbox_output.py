"""What is kept of a program's output, however it is split into chunks."""

from __future__ import annotations

import pytest

from mlagent_jax.sandbox.sandbox_worker.output_buffer import OutputBuffer

REPLACEMENTS = {b"/home/me/env": b"/python", b"/home/me": b"/workspace", b"/env/x": b"/tmp"}
PRINTED = b"/home/me/env/lib/a.py:3: /home/me/train.py /home/m /env/x /home/me/env"
EXPECTED = b"/python/lib/a.py:3: /workspace/train.py /home/m /tmp /python"


@pytest.mark.parametrize("size", range(1, len(PRINTED) + 1))
def test_replaces_paths_that_arrive_in_pieces(size: int) -> None:
    output = OutputBuffer(1000, REPLACEMENTS)
    for start in range(0, len(PRINTED), size):
        output.add(PRINTED[start : start + size])
    output.finish()
    assert output.head + output.tail == EXPECTED
    assert output.total == len(EXPECTED)


def test_keeps_head_and_tail_after_replacement() -> None:
    output = OutputBuffer(20, REPLACEMENTS)
    for _ in range(50):
        output.add(PRINTED)
    output.finish()
    assert (output.head, bytes(output.tail)) == (EXPECTED[:10], EXPECTED[-10:])
    assert output.total == 50 * len(EXPECTED)

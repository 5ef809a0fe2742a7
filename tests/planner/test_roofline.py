"""The documented formula, with numbers that can be checked by hand."""

import pytest

from mlagent_jax.planner.collectives import Collective
from mlagent_jax.planner.roofline import roofline
from mlagent_jax.planner.targets import find_target


def test_each_term_and_the_bound():
    target = find_target("h100-8")
    collective = Collective("all-gather", 8, 1, 10, 9e11)
    times = roofline(
        target, flops=8 * 989e12, devices=8, memory_bytes=3.35232e12 / 2, collectives=[collective]
    )
    assert (times.compute, times.memory, times.interconnect) == pytest.approx((1.0, 0.5, 2.0))
    assert (times.bound, times.no_overlap, times.limited_by) == (
        pytest.approx(2.0),
        pytest.approx(3.5),
        "interconnect",
    )


def test_the_network_limits_collectives_between_hosts():
    """One chip of each host: 8 GB are received over a port of 50 GB/s, not over links of 450 GB/s."""
    target = find_target("h100-16")
    pair = roofline(target, 0.0, 16, 0.0, [Collective("all-gather", 2, 2, 1, 8e9)])
    assert pair.interconnect == pytest.approx(8e9 / 5e10)
    # All sixteen gather 16 GB: half of it enters each host through eight ports, faster than over the links.
    everybody = roofline(target, 0.0, 16, 0.0, [Collective("all-gather", 16, 2, 1, 15e9)])
    assert everybody.interconnect == pytest.approx(15e9 / 4.5e11)
    tpu = roofline(find_target("v5e-16"), 0.0, 16, 0.0, [Collective("all-gather", 16, 4, 1, 15e9)])
    assert tpu.interconnect == pytest.approx(15e9 / 9e10), "the links of a slice span its hosts"

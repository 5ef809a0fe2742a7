"""The least time that a program can take on a chip: a bound, not a measurement.

    compute       executed FLOPs / (devices x the chip's bf16 peak)
    memory        bytes each device moves to and from its memory / the memory's bandwidth
    interconnect  sum over collectives of bytes received by a device / its links' bandwidth; where a group spans
                  hosts that a network connects, the time to receive the other hosts' data (h - 1 of h parts,
                  shared by the chips of a host) at the network's bandwidth, if that is longer
    bound         the largest of the three (everything overlaps)
    no overlap    their sum

Real steps lie between the bound and slightly more than the sum: no matrix product reaches the peak.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlagent_jax.planner.collectives import Collective
from mlagent_jax.planner.targets import Target


@dataclass(frozen=True)
class Roofline:
    """Seconds for one run of a program."""

    compute: float
    memory: float
    interconnect: float

    @property
    def bound(self) -> float:
        return max(self.compute, self.memory, self.interconnect)

    @property
    def no_overlap(self) -> float:
        return self.compute + self.memory + self.interconnect

    @property
    def limited_by(self) -> str:
        return max(("compute", "memory", "interconnect"), key=lambda name: getattr(self, name))


def roofline(
    target: Target, flops: float, devices: int, memory_bytes: float, collectives: Sequence[Collective]
) -> Roofline:
    """flops: of all `devices` together. memory_bytes: of one."""
    chip = target.chip
    return Roofline(
        compute=flops / (devices * chip.flops),
        memory=memory_bytes / chip.memory_bandwidth,
        interconnect=sum(_seconds(target, collective) for collective in collectives),
    )


def _seconds(target: Target, collective: Collective) -> float:
    chip = target.chip
    links = collective.received / chip.link_bandwidth
    if collective.hosts == 1 or not chip.network_bandwidth:
        return links
    if collective.kind == "collective-permute":
        return collective.received / chip.network_bandwidth
    # What the chips of a host need from other hosts enters the host once, and is passed on over the links.
    group, hosts = collective.group, collective.hosts
    whole = collective.received * group / (group - 1)
    here = max(group // hosts, 1)
    return max(links, whole * (hosts - 1) / hosts / here / chip.network_bandwidth)

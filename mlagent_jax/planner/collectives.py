"""The collectives that a compiled program runs, read from its HLO: kinds, counts, bytes and participants.

An instruction in the body of a loop counts once for each iteration. On GPUs XLA annotates the number of iterations; on
TPUs it is the constant that the loop's condition compares with (`lax.scan` counts from 0 in steps of 1).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_BITS = {"pred": 8, "bf16": 16, "f16": 16, "f32": 32, "f64": 64, "c64": 64, "c128": 128}

_COMPUTATION = re.compile(r"^(?P<entry>ENTRY )?%?(?P<name>[\w.\-]+) \(.*\) -> .*\{$")
_OPERATION = re.compile(r"(?:^|\s)(?P<kind>" + "|".join(KINDS) + r")(?P<start>-start)?\(")
_CALLED = re.compile(
    r"\b(?:calls|to_apply|body|condition|branch_computations|called_computations)=(\{[^}]*\}|%?[\w.\-]+)"
)
_SHAPE = re.compile(r"\b([a-z]+\d*(?:e\dm\d\w*)?)\[([\d,]*)\]")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_CONSTANT = re.compile(r"= [su](?:32|64)\[\]\S* constant\((\d+)\)")


@dataclass(frozen=True)
class Collective:
    """One kind of collective over groups of one size, summed over a run of the program, for one device.

    group: devices that take part. hosts: how many hosts they are on. count: how often it runs. received: bytes that the
    device receives with the ring algorithm. For an all-gather this is the part of the result that is on other devices;
    for a reduce-scatter or all-to-all the same part of the operand; for an all-reduce twice that part.
    """

    kind: str
    group: int
    hosts: int
    count: int
    received: float


@dataclass(frozen=True)
class _Instruction:
    kind: str
    group: int
    hosts: int
    received: float


def read_collectives(hlo: str, devices: int, chips_per_host: int) -> list[Collective]:
    """The collectives of an optimised HLO module, most bytes first.

    devices: of the whole program. chips_per_host: how many consecutive devices are on one host.
    """
    computations = _computations(hlo)
    totals: dict[tuple[str, int, int], list[float]] = defaultdict(lambda: [0, 0.0])
    for name, times in _executions(computations).items():
        for line in computations[name]:
            instruction = _collective(line, devices, chips_per_host)
            if instruction is None or instruction.group == 1:
                continue
            total = totals[instruction.kind, instruction.group, instruction.hosts]
            total[0] += times
            total[1] += times * instruction.received
    found = [Collective(*key, int(count), received) for key, (count, received) in totals.items()]
    return sorted(found, key=lambda collective: -collective.received)


def _computations(hlo: str) -> dict[str, list[str]]:
    """The lines of each computation, by name; the name of the entry is empty."""
    computations: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in hlo.splitlines():
        header = _COMPUTATION.match(line)
        if header:
            lines = computations.setdefault("" if header["entry"] else header["name"], [])
        else:
            lines.append(line)
    return computations


def _executions(computations: dict[str, list[str]]) -> dict[str, int]:
    """How often each computation runs when the entry runs once."""
    times: dict[str, int] = defaultdict(int)

    def visit(name: str, count: int) -> None:
        times[name] += count
        for line in computations[name]:
            iterations = _trip_count(line, computations) if " while(" in line else 1
            for called in _called(line):
                if called in computations:
                    visit(called, count * iterations)

    if "" in computations:
        visit("", 1)
    return times


def _called(line: str) -> Iterator[str]:
    for names in _CALLED.findall(line):
        yield from re.findall(r"[\w.\-]+", names)


def _trip_count(line: str, computations: dict[str, list[str]]) -> int:
    """Iterations of a while instruction; 1 where they are only known at run time."""
    noted = _TRIPS.search(line)
    if noted:
        return int(noted[1])
    condition = re.search(r"condition=%?([\w.\-]+)", line)
    limits = {
        int(constant)
        for inner in computations.get(condition[1] if condition else "", [])
        for constant in _CONSTANT.findall(inner)
    }
    return limits.pop() if len(limits) == 1 else 1


def _collective(line: str, devices: int, chips_per_host: int) -> _Instruction | None:
    operation = _OPERATION.search(line)
    if operation is None or " = " not in line:
        return None
    kind = operation["kind"]
    size = _size(kind, bool(operation["start"]), line[line.index(" = ") : operation.start()])
    if kind == "collective-permute":
        return _Instruction(kind, devices, _permuted_hosts(line, chips_per_host), size)
    groups = _groups(line, devices)
    group = len(groups[0])
    hosts = max(len({device // chips_per_host for device in members}) for members in groups)
    if kind == "reduce-scatter" and not operation["start"]:
        size *= group
    elsewhere = size * (group - 1) / group
    return _Instruction(kind, group, hosts, 2 * elsewhere if kind == "all-reduce" else elsewhere)


def _size(kind: str, start: bool, result: str) -> float:
    """Bytes of the result. A -start returns operands and results; of these, the larger half."""
    shapes = _bytes_of(result)
    if not start or kind == "all-reduce":
        return sum(shapes)
    half = len(shapes) // 2
    return max(sum(shapes[:half]), sum(shapes[half:]))


def _bytes_of(text: str) -> list[float]:
    """The size of each array in a type; scalars, the bookkeeping of asynchronous operations, are left out."""
    sizes = []
    for dtype, dimensions in _SHAPE.findall(text):
        if not dimensions:
            continue
        bits = _BITS.get(dtype) or int((re.search(r"\d+", dtype) or ["8"])[0])
        sizes.append(prod(int(n) for n in dimensions.split(",") if n) * bits / 8)
    return sizes


def _groups(line: str, devices: int) -> Sequence[Sequence[int]]:
    """replica_groups in any of XLA's notations; without it, all devices are one group."""
    listed = re.search(r"replica_groups=\{(\{[\d,{}]*\})\}", line)
    if listed:
        return [[int(n) for n in group.split(",")] for group in re.findall(r"\{([\d,]+)\}", listed[1])]
    iota = re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", line)
    if iota:
        shape, reshaped, order = (
            tuple(int(n) for n in (part or "").split(",") if n) for part in iota.groups()
        )
        ids = np.arange(prod(reshaped)).reshape(reshaped)
        return (ids.transpose(order) if order else ids).reshape(shape).tolist()
    mesh = re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", line)
    if mesh:
        return _mesh_groups(mesh[1], mesh[2])
    return [range(devices)]


def _mesh_groups(axes: str, chosen: str) -> Sequence[Sequence[int]]:
    """`mesh['a'=2,'b'=4] {'b'}`, where `'b':(2)2` is the part of size 2 below a factor of 2 of axis b."""
    names, sizes = zip(
        *((name, int(size)) for name, size in re.findall(r"'([^']+)'=(\d+)", axes)), strict=True
    )
    shape: list[int] = []
    picked: list[int] = []
    parts = {
        name: (above, size) for name, above, size in re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", chosen)
    }
    for name, size in zip(names, sizes, strict=True):
        above, part = parts.get(name, ("", ""))
        if part:
            split = [int(above), int(part), size // int(above) // int(part)]
            picked.append(len(shape) + 1)
            shape += split
        else:
            if name in parts:
                picked.append(len(shape))
            shape.append(size)
    rest = [axis for axis in range(len(shape)) if axis not in picked]
    ids = np.arange(prod(shape)).reshape(shape).transpose(*rest, *picked)
    return ids.reshape(-1, prod(shape[axis] for axis in picked)).tolist()


def _permuted_hosts(line: str, chips_per_host: int) -> int:
    pairs = re.findall(r"\{(\d+),(\d+)\}", line.partition("source_target_pairs=")[2].partition("}}")[0] + "}")
    crosses = any(int(source) // chips_per_host != int(target) // chips_per_host for source, target in pairs)
    return 2 if crosses else 1

"""A plan as text: tables of memory, collectives and time, and whether it fits."""

from __future__ import annotations

from collections.abc import Sequence

from mlagent_jax.planner.plan import SPARE, Plan, ProgramPlan, gib

_FORMULA = (
    "Roofline: compute = executed FLOPs / (devices x bf16 peak); memory = least bytes / HBM bandwidth; interconnect =\n"
    "bytes received / link bandwidth (between hosts: network bandwidth, if slower). bound = the largest, no overlap = "
    "the sum."
)


def render(plan: Plan) -> str:
    """The whole plan as text."""
    target, chip = plan.target, plan.target.chip
    lines = [
        f"{target.name}: {target.chips} x {target.kind}, {gib(chip.memory)} each, on {target.hosts} host(s); "
        f"attention backend {target.attention!r}, which the target decides",
        f"peak {chip.flops / 1e12:.0f} TFLOP/s bf16, HBM {chip.memory_bandwidth / 1e12:.2f} TB/s, links "
        f"{chip.link_bandwidth / 1e9:.0f} GB/s"
        + (
            f", network {chip.network_bandwidth / 1e9:.0f} GB/s a chip"
            if target.hosts > 1 and chip.network_bandwidth
            else ""
        )
        + f" ({chip.source})",
        "",
    ]
    if plan.programs:
        lines += [
            *_memory(plan.programs),
            "",
            *_collectives(plan.programs),
            "",
            *_time(plan.programs),
            _FORMULA,
            "",
        ]
        bound, no_overlap = plan.seconds
        lines.append(
            f"One step or update: {_seconds(bound)} at the least, {_seconds(no_overlap)} without overlap."
        )
    lines.append(f"FITS, with {SPARE:.0%} to spare" if plan.fits else "DOES NOT FIT")
    lines += [f"  {problem}" for problem in plan.problems]
    if target.platform == "cuda" and plan.fits:
        lines.append(
            "Set XLA_PYTHON_CLIENT_MEM_FRACTION=0.95 for the run: JAX takes only 75% of a GPU's memory otherwise."
        )
    return "\n".join(lines)


def _memory(programs: Sequence[ProgramPlan]) -> list[str]:
    columns = (
        "GiB per device",
        "params",
        "optimiser",
        "gradients",
        "other",
        "temporary",
        "beside",
        "needed",
        "spare",
    )
    rows = []
    for plan in programs:
        parts, memory = dict(plan.parts), plan.compiled.memory
        named = [parts.pop(name, 0) for name in ("parameters", "optimiser", "gradients")]
        sizes: list[float | None] = [*named, sum(parts.values())]
        sizes += [memory.temporaries if memory else None, sum(plan.beside.values())]
        sizes += [plan.needed, plan.capacity - plan.needed] if memory else [None, None]
        rows.append((plan.program.name, *("-" if size is None else f"{size / 2**30:.2f}" for size in sizes)))
    note = "needed = the compiler's peak for the program + what lies beside it (of the trainer, no argument)"
    return [*_aligned([columns, *rows]), note]


def _collectives(programs: Sequence[ProgramPlan]) -> list[str]:
    columns = ("collectives of one run", "kind", "devices", "hosts", "count", "GB received per device")
    rows = [
        (
            plan.program.name,
            *(collective.kind, str(collective.group), str(collective.hosts), str(collective.count)),
            f"{collective.received / 1e9:.2f}",
        )
        for plan in programs
        for collective in plan.compiled.collectives
    ]
    return _aligned([columns, *rows]) if rows else ["no collectives"]


def _time(programs: Sequence[ProgramPlan]) -> list[str]:
    columns = (
        *("one run", "runs a step", "model TFLOP", "executed", "compute", "memory", "interconnect", "bound"),
        *("no overlap", "limited by"),
    )
    rows = []
    for plan in programs:
        work, roof = plan.program.work, plan.roofline
        flops = (f"{work.model_flops / 1e12:.1f}", f"{work.executed_flops / 1e12:.1f}")
        seconds = (roof.compute, roof.memory, roof.interconnect, roof.bound, roof.no_overlap)
        shown = [_seconds(s) for s in seconds]
        rows.append((plan.program.name, str(plan.program.runs_per_step), *flops, *shown, roof.limited_by))
    return _aligned([columns, *rows])


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.2f} ms"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if not column else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]

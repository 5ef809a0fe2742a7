"""Whether a stage fits a target, and how long its step must take: every program is compiled and added up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mlagent_jax.planner.compilation import Compiled, compile_program
from mlagent_jax.planner.programs import Program, bytes_per_device
from mlagent_jax.planner.roofline import Roofline, roofline
from mlagent_jax.planner.targets import Target

SPARE = 0.10  # share of the memory, for fragmentation and for the runtime's own allocations


@dataclass(frozen=True)
class ProgramPlan:
    """One program on one device of the target. parts, beside, capacity: bytes, the first two by what takes them."""

    program: Program
    compiled: Compiled
    roofline: Roofline
    parts: dict[str, int]
    beside: dict[str, int]
    capacity: int

    @property
    def needed(self) -> int:
        """Bytes, with what is beside the program; 0 where the compiler refused it."""
        memory = self.compiled.memory
        return memory.peak + sum(self.beside.values()) if memory else 0

    @property
    def problem(self) -> str:
        """Why it does not fit; empty if it does."""
        if self.compiled.refusal:
            return f"{self.program.name}: {self.compiled.refusal}"
        allowed = (1 - SPARE) * self.capacity
        if self.needed <= allowed:
            return ""
        return (
            f"{self.program.name} needs {gib(self.needed)} of a device's {gib(self.capacity)}, more than the "
            f"{gib(allowed)} that leave {SPARE:.0%} to spare"
        )

    def to_dict(self) -> dict[str, Any]:
        roof, work = self.roofline, self.program.work
        return {
            "name": self.program.name,
            "devices": self.program.devices,
            "runs_per_step": self.program.runs_per_step,
            "bytes": {
                "parts": self.parts,
                "beside": self.beside,
                "compiled": asdict(self.compiled.memory) if self.compiled.memory else None,
                "needed": self.needed,
                "capacity": self.capacity,
                "spare": self.capacity - self.needed if self.compiled.memory else None,
            },
            "collectives": [asdict(collective) for collective in self.compiled.collectives],
            "attention_kernels": self.compiled.attention_kernels,
            "flops": {"model": work.model_flops, "executed": work.executed_flops},
            "memory_traffic_bytes": work.memory_bytes,
            "seconds": asdict(roof) | {"bound": roof.bound, "no_overlap": roof.no_overlap},
            "limited_by": roof.limited_by,
            "compile_seconds": round(self.compiled.seconds, 1),
            "problem": self.problem,
        }


@dataclass(frozen=True)
class Plan:
    """A stage's programs on a target. refusal: why the stage cannot run there at all; empty if it can."""

    target: Target
    programs: tuple[ProgramPlan, ...] = ()
    refusal: str = ""

    @property
    def problems(self) -> list[str]:
        found = [plan.problem for plan in self.programs if plan.problem]
        return [self.refusal, *found] if self.refusal else found

    @property
    def fits(self) -> bool:
        return not self.problems

    @property
    def needed(self) -> int:
        """Bytes, of the program that needs most."""
        return max((plan.needed for plan in self.programs), default=0)

    @property
    def seconds(self) -> tuple[float, float]:
        """The time of one optimiser step or PPO update: the roofline's bound, and without any overlap."""
        return (
            sum(plan.program.runs_per_step * plan.roofline.bound for plan in self.programs),
            sum(plan.program.runs_per_step * plan.roofline.no_overlap for plan in self.programs),
        )

    def to_dict(self) -> dict[str, Any]:
        bound, no_overlap = self.seconds
        return {
            "target": self.target.name,
            "fits": self.fits,
            "problems": self.problems,
            "step_seconds": {"bound": bound, "no_overlap": no_overlap},
            "programs": [plan.to_dict() for plan in self.programs],
        }


def make_plan(
    programs: Sequence[Program],
    target: Target,
    log: Callable[[str], None] = lambda _: None,
    stop_at_problem: bool = False,
) -> Plan:
    """Compiles each program.

    log: called with a line before each compilation. stop_at_problem: compile no program after the first one that does
        not fit, and none whose arguments alone do not fit.
    """
    plans: list[ProgramPlan] = []
    for program in programs:
        if stop_at_problem and (plans and plans[-1].problem):
            break
        if stop_at_problem and (refusal := _too_large(program, target)):
            return Plan(target, tuple(plans), refusal)
        log(f"compiling {program.name} for {target.name}")
        compiled = compile_program(program, target)
        work = program.work
        plans.append(
            ProgramPlan(
                program=program,
                compiled=compiled,
                roofline=roofline(
                    target, work.executed_flops, program.devices, work.memory_bytes, compiled.collectives
                ),
                parts={name: bytes_per_device(tree) for name, tree in program.parts.items()},
                beside={name: bytes_per_device(tree) for name, tree in program.beside.items()},
                capacity=target.chip.memory,
            )
        )
    return Plan(target, tuple(plans))


def _too_large(program: Program, target: Target) -> str:
    """Why the arguments alone do not fit, however the program is compiled; empty if they do."""
    held = sum(bytes_per_device(tree) for trees in (program.parts, program.beside) for tree in trees.values())
    allowed = (1 - SPARE) * target.chip.memory
    return (
        ""
        if held <= allowed
        else f"{program.name}: its arguments alone take {gib(held)} of a device's {gib(target.chip.memory)}"
    )


def gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"

"""Compiling a program for its target, and reading from the result what it takes."""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import dataclass, field

import jax
from jax.errors import JaxRuntimeError

from mlagent_jax.planner.collectives import Collective, read_collectives
from mlagent_jax.planner.programs import Program
from mlagent_jax.planner.targets import Target

# Custom calls that are fused attention kernels: cuDNN's, and Pallas kernels on TPUs.
_KERNEL = re.compile(r'custom_call_target="(__cudnn\$fmha\w*|tpu_custom_call)"')


@dataclass(frozen=True)
class Memory:
    """Bytes of one device, by the compiler's plan. aliased: outputs that take the place of donated arguments.

    peak: arguments, outputs and temporaries together at the moment when they are most.
    """

    arguments: int
    outputs: int
    aliased: int
    temporaries: int
    peak: int


@dataclass(frozen=True)
class Compiled:
    """refusal: the compiler's sentence where it found that the program does not fit; memory is None then."""

    seconds: float
    memory: Memory | None = None
    collectives: tuple[Collective, ...] = ()
    attention_kernels: dict[str, int] = field(default_factory=dict)
    refusal: str = ""


def compile_program(program: Program, target: Target) -> Compiled:
    """Minutes for a 7B on two cores. Raises JaxRuntimeError for any failure but a lack of memory."""
    began = time.monotonic()
    lowered = program.function.trace(*program.arguments).lower(lowering_platforms=(target.platform,))
    try:
        executable = lowered.compile()
    except JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return Compiled(time.monotonic() - began, refusal=_first_sentence(str(error)))
    hlo = executable.as_text() or ""
    return Compiled(
        seconds=time.monotonic() - began,
        memory=_memory(executable),
        collectives=tuple(read_collectives(hlo, program.devices, target.chips_per_host)),
        attention_kernels=dict(Counter(_KERNEL.findall(hlo))),
    )


def _memory(executable: jax.stages.Compiled) -> Memory:
    stats = executable.memory_analysis()
    assert stats is not None, "every compiler that is planned with reports its memory"
    everything = stats.argument_size_in_bytes + stats.output_size_in_bytes - stats.alias_size_in_bytes
    return Memory(
        arguments=stats.argument_size_in_bytes,
        outputs=stats.output_size_in_bytes,
        aliased=stats.alias_size_in_bytes,
        temporaries=stats.temp_size_in_bytes,
        peak=max(stats.peak_memory_in_bytes, everything),
    )


def _first_sentence(message: str) -> str:
    return " ".join(message.split("\n")[0].split()).removeprefix("RESOURCE_EXHAUSTED: ")

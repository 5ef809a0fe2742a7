"""Compiling a program for its target, and reading its memory and collectives from the result."""

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
    """Bytes on one device, as the compiler planned them.

    aliased: outputs that reuse donated arguments. peak: the most that arguments, outputs and temporaries take together.
    """

    arguments: int
    outputs: int
    aliased: int
    temporaries: int
    peak: int


@dataclass(frozen=True)
class Compiled:
    """What the compiler made of a program.

    seconds: that it took. refusal: its message where the program does not fit; memory is then None.
    """

    seconds: float
    memory: Memory | None = None
    collectives: tuple[Collective, ...] = ()
    attention_kernels: dict[str, int] = field(default_factory=dict)
    refusal: str = ""


def compile_program(program: Program, target: Target) -> Compiled:
    """Takes minutes for a 7B model on two cores. Raises JaxRuntimeError for any failure but a lack of memory."""
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
    assert stats is not None, "all compilers that plans are made with report their memory"
    total = stats.argument_size_in_bytes + stats.output_size_in_bytes - stats.alias_size_in_bytes
    return Memory(
        arguments=stats.argument_size_in_bytes,
        outputs=stats.output_size_in_bytes,
        aliased=stats.alias_size_in_bytes,
        temporaries=stats.temp_size_in_bytes,
        peak=max(stats.peak_memory_in_bytes, total),
    )


def _first_sentence(message: str) -> str:
    return " ".join(message.split("\n")[0].split()).removeprefix("RESOURCE_EXHAUSTED: ")

"""What the user may choose about containers."""

from __future__ import annotations

from dataclasses import dataclass

from mlagent_jax.fields import setting


@dataclass(frozen=True)
class DockerSettings:
    """Settings of the Docker backend.

    engines: addresses, as DOCKER_HOST has them (`unix:///run/docker.sock`, `ssh://user@host`,
        `tcp://host:2376`); "" is the one that the environment names. Jobs are spread over all of them.
    image: built by launch/docker.
    runtime: of the engine: "" for its default, or one that it knows by name, such as "runsc" or "sysbox-runc".
    gpus: identifiers of each engine's GPUs. A job then has one of them for itself, and address space without
        limit, which CUDA needs; its control group limits its memory.
    spares: how many containers stand ready beside those that work; 0 means as many as there are workers.
    life_seconds: after which a container ends itself, whatever became of its owner.
    call_seconds: the deadline of one call to an engine.
    calls: how many may be on their way to one engine at once.
    patience_seconds: how long a job waits for an engine that does not answer, before it is given up.
    """

    engines: tuple[str, ...] = setting(("",), filled=True, distinct=True, defines_run=False)
    image: str = setting("mlagent-jax-sandbox:1", filled=True)
    runtime: str = setting("")
    gpus: tuple[str, ...] = setting((), distinct=True)
    spares: int = setting(0, at_least=0, at_most=4096, defines_run=False)
    life_seconds: int = setting(3600, at_least=1, defines_run=False)
    call_seconds: float = setting(30.0, above=0, defines_run=False)
    calls: int = setting(8, at_least=1, at_most=4096, defines_run=False)
    patience_seconds: float = setting(60.0, above=0, defines_run=False)

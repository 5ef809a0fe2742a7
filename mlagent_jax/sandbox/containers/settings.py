"""What the user may choose about containers."""

from __future__ import annotations

from dataclasses import dataclass

from mlagent_jax.fields import check, setting

CONTAINER_PER = ("task", "episode")


@dataclass(frozen=True)
class DockerSettings:
    """Settings of the Docker backend.

    engines: addresses, as DOCKER_HOST has them (`unix:///run/docker.sock`, `ssh://user@host`,
        `tcp://host:2376`); "" is the one that the environment names. Jobs are spread over all of them.
    image: built by launch/docker.
    runtime: of the engine: "" for its default, or one that it knows by name, such as "runsc" or "sysbox-runc".
    gpus: identifiers of each engine's GPUs. A job then has one of them for itself, and address space without
        limit, which CUDA needs; its control group limits its memory.
    container_per: "task": a container serves jobs of all episodes of a task, one after the other, where the engine
        can hide from each what those before it did, and those of one episode elsewhere. "episode": always those of
        one episode, or of one batch of single steps; ten times slower where many episodes take turns.
    most_jobs: after which a container is replaced by a fresh one.
    kept: how many containers may wait for their next job, with some 150 MB each; 0 means as many as fit into a
        quarter of the memory of the engines' hosts, but two for each worker at least. Each task in play needs
        as many as there are workers, for none to start anew when tasks take turns.
    spares: how many fresh ones stand ready beside those. 0 means none where containers serve a task, and as many
        as there are workers where they serve an episode.
    life_seconds: after which a container ends itself, whatever became of its owner.
    call_seconds: the deadline of one call to an engine.
    calls: how many may be on their way to one engine at once.
    patience_seconds: how long a job waits for an engine that does not answer, before it is given up.
    """

    engines: tuple[str, ...] = setting(("",), filled=True, distinct=True, defines_run=False)
    image: str = setting("mlagent-jax-sandbox:1", filled=True)
    runtime: str = setting("")
    gpus: tuple[str, ...] = setting((), distinct=True)
    container_per: str = setting("task", choices=CONTAINER_PER, defines_run=False)
    most_jobs: int = setting(500, at_least=1, defines_run=False)
    kept: int = setting(0, at_least=0, at_most=4096, defines_run=False)
    spares: int = setting(0, at_least=0, at_most=4096, defines_run=False)
    life_seconds: int = setting(3600, at_least=1, defines_run=False)
    call_seconds: float = setting(30.0, above=0, defines_run=False)
    calls: int = setting(8, at_least=1, at_most=4096, defines_run=False)
    patience_seconds: float = setting(60.0, above=0, defines_run=False)

    def __post_init__(self) -> None:
        check(self, "sandbox.docker")

"""The settings of the Docker backend."""

from __future__ import annotations

from dataclasses import dataclass

from mlagent_jax.fields import check, setting

CONTAINER_PER = ("task", "episode")


@dataclass(frozen=True)
class DockerSettings:
    """Settings of the Docker backend.

    engines: addresses in the form of DOCKER_HOST (`unix:///run/docker.sock`, `ssh://user@host`, `tcp://host:2376`);
        "" is the one that the environment names. Jobs are spread over all of them.
    image: built by launch/docker.
    runtime: the engine's runtime by name, such as "runsc" or "sysbox-runc", or "" for its default.
    gpus: identifiers of each engine's GPUs. Each job then has one of them to itself. Its address space is unlimited,
        as CUDA needs, and only its control group limits its memory.
    container_per: "task": a container serves jobs of all episodes of a task, one after another, if the engine can
        hide from each job what earlier ones did; otherwise it serves one episode. "episode": a container always serves
        one episode, or one batch of single steps; ten times slower where many episodes take turns.
    most_jobs: how many jobs a container serves before it is replaced.
    kept: how many containers may be idle, at about 150 MB each. 0 means as many as fit into a quarter of the memory
        of the engines' hosts, but at least two per worker. So that no container has to be restarted when tasks take
        turns, each active task needs as many as there are workers.
    spares: how many unused containers are kept ready in addition. 0 means none where containers serve a task, and as
        many as there are workers where they serve an episode.
    life_seconds: how long a container lives before it ends itself, even if its owner is gone.
    call_seconds: the deadline of one call to an engine.
    calls: how many calls to one engine may be in progress at once.
    patience_seconds: how long a job waits for an engine that does not answer before it fails.
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

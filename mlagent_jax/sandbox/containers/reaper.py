"""Removes abandoned containers, and never one whose owner is alive."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from absl import logging

from mlagent_jax.sandbox.containers import owner
from mlagent_jax.sandbox.containers.container import remove
from mlagent_jax.sandbox.containers.engine import Engine, EngineError


@dataclass(frozen=True)
class ContainerInfo:
    """A container of this project. owner: host and pid. abandoned: see `owner.is_abandoned`."""

    name: str
    state: str
    owner: str
    abandoned: bool


def list_containers(engine: Engine) -> list[ContainerInfo]:
    """Every container of this project on `engine`, whoever started it. Raises EngineError."""
    listed = engine.call(
        "list containers",
        lambda client: client.containers(all=True, filters={"label": owner.APP}),
    )
    return [
        ContainerInfo(
            entry["Names"][0].lstrip("/"),
            entry["State"],
            owner.describe(entry["Labels"]),
            owner.is_abandoned(entry["Labels"]),
        )
        for entry in listed
        if entry["Names"]  # a container that is being removed has none
    ]


def reap(engine: Engine) -> list[str]:
    """Removes abandoned containers. Returns their names. Raises EngineError if containers cannot be listed."""
    removed = []
    for container in list_containers(engine):
        if not container.abandoned:
            continue
        try:
            engine.call("remove an abandoned container", functools.partial(remove, name=container.name))
            removed.append(container.name)
        except EngineError as error:
            logging.warning("%s could not be removed: %s", container.name, error)
    if removed:
        logging.info("Removed %d containers of dead owners from %s", len(removed), engine.label)
    return removed

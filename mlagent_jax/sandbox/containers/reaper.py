"""Removes containers that nobody needs any more, and never one that somebody does."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from absl import logging

from mlagent_jax.sandbox.containers import owner
from mlagent_jax.sandbox.containers.container import remove
from mlagent_jax.sandbox.containers.engine import Engine, EngineError


@dataclass(frozen=True)
class Found:
    """A container of ours. owner: host and pid. abandoned: see `owner.is_abandoned`."""

    name: str
    state: str
    owner: str
    abandoned: bool


def find(engine: Engine) -> list[Found]:
    """Every container of this project on `engine`, whoever started it. Raises EngineError."""
    listed = engine.call(
        "list containers",
        lambda client: client.containers(all=True, filters={"label": owner.APP}),
    )
    return [
        Found(
            entry["Names"][0].lstrip("/"),
            entry["State"],
            owner.describe(entry["Labels"]),
            owner.is_abandoned(entry["Labels"]),
        )
        for entry in listed
        if entry["Names"]  # not one that is being removed
    ]


def reap(engine: Engine) -> list[str]:
    """Removes what is abandoned, and returns the names. Raises EngineError when nothing can be listed."""
    removed = []
    for container in find(engine):
        if not container.abandoned:
            continue
        try:
            engine.call("remove an abandoned container", functools.partial(remove, name=container.name))
            removed.append(container.name)
        except EngineError as error:
            logging.warning("%s is left: %s", container.name, error)
    if removed:
        logging.info("Removed %d containers of dead owners from %s", len(removed), engine.label)
    return removed

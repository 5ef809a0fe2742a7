"""What controls chose and learnt, as JSON that a resumed evaluation and the report read."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import numpy as np

from mlagent_jax.controls.bandit_learning import LearntBandit
from mlagent_jax.controls.context import FEATURES
from mlagent_jax.controls.forward_selection import Selection, Trial
from mlagent_jax.errors import UserError
from mlagent_jax.files import write_atomically
from mlagent_jax.jsonl import Record

T = TypeVar("T")


def stored_selection(path: Path, select: Callable[[], Selection]) -> Selection:
    """The selection in `path`, or that of `select`, which is then stored. Raises UserError if the file is damaged."""
    return _stored(path, select, asdict, _selection)


def stored_bandit(path: Path, learn: Callable[[], LearntBandit]) -> LearntBandit:
    """As `stored_selection`, of a bandit."""
    return _stored(path, learn, _bandit_record, _bandit)


def _stored(
    path: Path, make: Callable[[], T], to_json: Callable[[T], Record], from_json: Callable[[Record], T]
) -> T:
    if not path.exists():
        made = make()
        write_atomically(path, json.dumps(to_json(made), indent=1, allow_nan=False) + "\n")
        return made
    try:
        return from_json(json.loads(path.read_bytes()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is damaged ({type(error).__name__}: {error}): delete it, and what it held is made again from "
            "stored executions"
        ) from error


def _selection(record: Record) -> Selection:
    rounds = tuple(tuple(Trial(**trial) for trial in each) for each in record["rounds"])
    return Selection(tuple(record["sequence"]), record["gains"], rounds, record["executions"])


def _bandit_record(learnt: LearntBandit) -> Record:
    weights = {name: vector.tolist() for name, vector in learnt.weights.items()}
    return {
        "features": FEATURES,
        "weights": weights,
        "pulls": learnt.pulls,
        "executions": learnt.executions,
    }


def _bandit(record: Record) -> LearntBandit:
    if tuple(record["features"]) != FEATURES:
        raise ValueError("it has the features of another version")
    weights = {name: np.array(vector, np.float64) for name, vector in record["weights"].items()}
    if any(vector.shape != (len(FEATURES),) for vector in weights.values()):
        raise ValueError("an arm has not as many weights as there are features")
    return LearntBandit(weights, record["pulls"], record["executions"])

"""The checkpoints of a training stage (SFT or PPO): the parameters, and what else training needs to resume.

The parameters are an item of their own, so that a later stage reads them alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from jax.sharding import Mesh
from jaxtyping import PyTree

from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.params import Params
from mlagent_jax.models.qwen2 import abstract_params
from mlagent_jax.models.sharding import param_shardings
from mlagent_jax.run_folder import CHECKPOINTS
from mlagent_jax.training.checkpoints import Checkpoints
from mlagent_jax.training.state import with_shardings

PARAMS, TRAINING = "params", "training"


class SavedState(NamedTuple):
    """step: the checkpoint's number. params: of the whole model. training: all else that training needs to resume."""

    step: int
    params: Params
    training: PyTree


def open_checkpoints(stage_dir: Path, keep: int = 2) -> Checkpoints:
    """Those in `stage_dir/checkpoints`. keep: how many of the newest to keep."""
    return Checkpoints(stage_dir / CHECKPOINTS, (PARAMS, TRAINING), keep)


def save_state(checkpoints: Checkpoints, state: SavedState) -> None:
    """Raises what `Checkpoints.save` raises."""
    checkpoints.save(state.step, **{PARAMS: state.params, TRAINING: state.training})


def resume_state(checkpoints: Checkpoints, params: Params, training: PyTree) -> SavedState | None:
    """The newest intact checkpoint, with the shardings of `params` and `training`; None if nothing has been saved.

    Raises what `Checkpoints.resume` raises.
    """
    found = checkpoints.resume(**{PARAMS: params, TRAINING: training})
    if found is None:
        return None
    step, items = found
    return SavedState(step, items[PARAMS], items[TRAINING])


def load_params(stage_dir: Path, model: Qwen2Config, mesh: Mesh) -> Params:
    """The newest parameters that the stage saved, sharded over the mesh.

    model: as the stage was given it, with adapters if it had any. Raises CheckpointError if there is no checkpoint, or
    if it is of another model.
    """
    target = with_shardings(abstract_params(model), param_shardings(model, mesh))
    with open_checkpoints(stage_dir) as checkpoints:
        params: Params = checkpoints.restore(**{PARAMS: target})[PARAMS]
    return params

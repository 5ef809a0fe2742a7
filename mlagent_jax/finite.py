"""Checks for NaN and infinity in every training loop, so that such numbers are never saved, exported or sampled from.

A training step reports on the device whether its results are finite (`all_finite`), and the loop raises an error at the
first that is not (`Guard`). Where weights enter or leave a loop, `not_finite` names the arrays that are not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Shaped

from mlagent_jax.errors import UserError


class NotFiniteError(UserError):
    """Training diverged, or was given numbers that are not finite. The message names them and says what to do."""


def all_finite(tree: Any) -> Bool[Array, ""]:
    """Whether every number of every array in `tree` is finite. For use inside `jax.jit`."""
    flags = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree) if _is_inexact(leaf)]
    return jnp.stack(flags).all() if flags else jnp.bool_(True)


def not_finite(tree: Any) -> list[str]:
    """Names, such as "layers/q_proj/kernel", of the arrays in `tree` that contain a number that is not finite.

    The arrays may be on any mesh. All its processes must call this; they get the same names.
    """
    leaves = [(path, leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree) if _is_inexact(leaf)]
    flags = _finite_flags([leaf for _, leaf in leaves])
    return [leaf_name(path) for (path, _), finite in zip(leaves, flags, strict=True) if not bool(finite)]


def require_finite(tree: Any, what: str, remedy: str) -> None:
    """Raises NotFiniteError, "`what`: ARRAY is not finite; `remedy`", unless every array in `tree` is finite."""
    bad = not_finite(tree)
    if bad:
        others = f" and {len(bad) - 1} more arrays are" if len(bad) > 1 else " is"
        raise NotFiniteError(f"{what}: {bad[0]}{others} not finite (NaN or infinity); {remedy}")


def leaf_name(path: tuple[Any, ...]) -> str:
    """The path of a leaf, such as "params/layers/kernel", in nested dictionaries, sequences, tuples and dataclasses."""
    parts = (getattr(key, "key", getattr(key, "name", getattr(key, "idx", key))) for key in path)
    return "/".join(str(part) for part in parts)


@dataclass(frozen=True)
class Guard:
    """Raises an error when a network diverges in training.

    network: its name in messages, such as "the critic". setting: the name of the setting of its learning rate.
    """

    network: str
    setting: str

    def require(self, quantities: Mapping[str, Any], when: str, learning_rate: float) -> None:
        """Raises NotFiniteError for the first quantity that is not finite.

        quantities: by their names in messages: numbers or arrays, or bools that say whether something is finite.
        when: for example "at step 12".
        """
        for name, value in quantities.items():
            array = np.asarray(value)
            finite = array if array.dtype == bool else np.isfinite(array)
            if not finite.all():
                found = f" ({float(array)})" if array.ndim == 0 and array.dtype != bool else ""
                raise NotFiniteError(
                    f"{self.network} diverged: {name} {_verb(name)} not finite{found} {when}, at learning rate "
                    f"{learning_rate:g}. Nothing of this step was saved, and earlier checkpoints are finite. Lower "
                    f"{self.setting} and start again in another work directory"
                )


def is_finite_on_host(array: Shaped[np.ndarray, ...]) -> bool:
    """Whether all is finite, in any floating dtype. By a sum, since `isfinite` would allocate a second such array."""
    return bool(np.isfinite(np.sum(array, dtype=np.float64)))


@jax.jit
def _finite_flags(leaves: list[Any]) -> list[Array]:
    return [jnp.isfinite(leaf).all() for leaf in leaves]


def _is_inexact(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.inexact)


def _verb(name: str) -> str:
    return "are" if name.endswith("s") and not name.endswith("loss") else "is"

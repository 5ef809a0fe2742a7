"""How a model's parameters lie on a mesh: by the names of their axes and the rules of `parallel.rules`."""

from __future__ import annotations

import math

import jax
from jax.sharding import Mesh, NamedSharding
from jaxtyping import PyTree

from mlagent_jax.errors import UserError
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.qwen2 import logical_axes
from mlagent_jax.parallel.rules import spec


def param_shardings(config: Qwen2Config, mesh: Mesh) -> PyTree[NamedSharding]:
    """The tree of the model's parameters with a sharding for each, by `RULES`.

    Raises UserError as `check_model_fits` does.
    """
    check_model_fits(config, mesh)
    return jax.tree.map(
        lambda names: NamedSharding(mesh, spec(names)),
        logical_axes(config),
        is_leaf=lambda node: isinstance(node, tuple),
    )


def check_model_fits(config: Qwen2Config, mesh: Mesh) -> None:
    """Raises UserError where a dimension of the model cannot be split evenly over the mesh."""
    tensor, sequence = mesh.shape["tensor"], mesh.shape["sequence"]
    over_tensor = ("num_attention_heads", "num_key_value_heads", "intermediate_size", "vocab_size")
    sizes = {name: getattr(config, name) for name in over_tensor}
    _check_degree("mesh.tensor", tensor, sizes)
    heads = sizes["num_attention_heads"] // tensor
    _check_degree("mesh.sequence", sequence, {"num_attention_heads / mesh.tensor": heads})
    parts = mesh.shape["fsdp"] * sequence
    _check_degree("mesh.fsdp x mesh.sequence", parts, {"hidden_size": config.hidden_size})


def _check_degree(where: str, degree: int, sizes: dict[str, int]) -> None:
    failing = [f"{name} {size}" for name, size in sizes.items() if size % degree]
    if failing:
        common = math.gcd(*sizes.values())
        fitting = [str(n) for n in range(1, min(common, 128) + 1) if common % n == 0]
        raise UserError(
            f"{where} is {degree}, which does not divide the model's {' and '.join(failing)}; "
            f"choose one of {', '.join(fitting)}"
        )

import jax
import numpy as np
import optax
import pytest
from jax.sharding import AbstractMesh, AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from mlagent_jax.errors import UserError
from mlagent_jax.models.config import Qwen2Config, qwen2_5
from mlagent_jax.models.qwen2 import abstract_params
from mlagent_jax.parallel.mesh import (
    MeshConfig,
    batch_sharding,
    check_batch_fits,
    check_model_fits,
    make_mesh,
    optimiser_shardings,
    param_shardings,
    put,
)
from mlagent_jax.parallel.rules import AXES
from mlagent_jax.training.optimisers import OptimiserConfig, make_optimiser


def pretend(data=1, fsdp=1, tensor=1, sequence=1):
    """A mesh of devices that are not present, for asking about shardings."""
    return AbstractMesh((data, fsdp, tensor, sequence), AXES, axis_types=(AxisType.Auto,) * 4)


def test_axis_types_are_set_and_the_open_degree_is_filled_in():
    mesh = make_mesh(MeshConfig())
    assert mesh.axis_names == AXES == ("data", "fsdp", "tensor", "sequence")
    assert mesh.shape["fsdp"] == len(jax.devices())
    assert set(mesh.axis_types) == {AxisType.Auto}


@pytest.mark.parametrize(
    "config, message",
    [
        (MeshConfig(data=0), "mesh.data is 0"),
        (MeshConfig(data=-1, fsdp=-1), "only one of mesh.data, mesh.fsdp, mesh.tensor, mesh.sequence may"),
        (
            MeshConfig(data=64, fsdp=3),
            r"data=64 x fsdp=3 x tensor=1 x sequence=1 does not match the \d+ devices",
        ),
    ],
)
def test_impossible_degrees_are_refused(config, message):
    with pytest.raises(UserError, match=message):
        make_mesh(config)


def test_degrees_must_divide_the_dimensions_of_7b():
    model = qwen2_5("7b")
    check_model_fits(model, pretend(fsdp=8, tensor=4))
    check_model_fits(model, pretend(fsdp=2, tensor=2, sequence=7))
    # 8 divides neither number of heads; 7 divides the query heads, but there are only 4 KV heads.
    with pytest.raises(
        UserError, match=r"mesh.tensor is 8, .* num_attention_heads 28 .* choose one of 1, 2, 4$"
    ):
        check_model_fits(model, pretend(tensor=8))
    with pytest.raises(UserError, match=r"num_key_value_heads 4 .* choose one of 1, 2, 4$"):
        check_model_fits(model, pretend(tensor=7))
    with pytest.raises(UserError, match=r"mesh.sequence is 4, .* mesh.tensor 14; choose one of 1, 2, 7, 14$"):
        check_model_fits(model, pretend(tensor=2, sequence=4))
    with pytest.raises(UserError, match=r"fsdp x mesh.sequence is 6, .* hidden_size 3584"):
        check_model_fits(model, pretend(fsdp=3, sequence=2))


def test_rows_must_divide_over_the_mesh():
    check_batch_fits(8, 15_000, pretend(data=2, fsdp=4, sequence=4), "sft")
    with pytest.raises(UserError, match=r"sft.micro_rows is 6, but rows are split over 4 devices"):
        check_batch_fits(6, 16, pretend(data=2, fsdp=2), "sft")
    with pytest.raises(UserError, match=r"ppo.row_length is 15000, but rows are split over 7 devices"):
        check_batch_fits(4, 15_000, pretend(fsdp=4, sequence=7), "ppo")


def test_kernels_are_split_over_both_axes_and_biases_like_their_kernels():
    specs = jax.tree.map(lambda s: s.spec, param_shardings(qwen2_5("7b"), pretend(fsdp=4, tensor=2)))
    attention = specs["layers"]["attention"]
    assert attention["q_proj"]["kernel"] == P(None, ("fsdp", "sequence"), "tensor")
    assert attention["o_proj"]["kernel"] == P(None, "tensor", ("fsdp", "sequence"))
    assert attention["q_proj"]["bias"] == P(None, "tensor")
    assert specs["embed"] == P("tensor", ("fsdp", "sequence"))


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_moments_have_the_shardings_of_their_parameters(name):
    model = Qwen2Config(30, 16, 24, 2, 2, 1)
    mesh = pretend(fsdp=2, tensor=1)
    shardings = param_shardings(model, mesh)
    optimiser = make_optimiser(OptimiserConfig(name=name), 10)
    moment_shardings = optimiser_shardings(optimiser, abstract_params(model), shardings, mesh)
    state = jax.eval_shape(optimiser.init, abstract_params(model))
    assert jax.tree.structure(moment_shardings) == jax.tree.structure(state)
    moments = [
        (path[-1].key, sharding.spec)
        for path, sharding in jax.tree_util.tree_leaves_with_path(moment_shardings)
        if any(getattr(key, "name", "") == "mu" for key in path)
    ]
    assert len(moments) == len(jax.tree.leaves(shardings))
    assert ("embed", P("tensor", ("fsdp", "sequence"))) in moments
    counters = optax.tree.get_all_with_path(moment_shardings, "count")
    assert counters and all(sharding.spec == P() for _, sharding in counters)


def test_put_places_host_arrays():
    mesh = make_mesh(MeshConfig())
    sharding = batch_sharding(mesh, leading=1)
    assert sharding.spec == P(None, ("data", "fsdp"), "sequence")
    placed = put({"a": np.arange(8.0).reshape(1, 8)}, sharding)
    np.testing.assert_array_equal(placed["a"], [np.arange(8.0)])
    assert isinstance(placed["a"].sharding, NamedSharding)

"""Parameters and moments keep their documented dtypes: at the start, through steps and after a restore."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlagent_jax.errors import UserError
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.lora import LoRAConfig
from mlagent_jax.models.qwen2 import abstract_params, init_params, with_adapters
from mlagent_jax.models.sharding import param_shardings
from mlagent_jax.parallel.mesh import MeshConfig, batch_sharding, make_mesh, put
from mlagent_jax.ppo.actor_critic import params_of
from mlagent_jax.ppo.compilation import compile_update
from mlagent_jax.ppo.config import CRITICS, PPOConfig
from mlagent_jax.ppo.step import apply_gradients
from mlagent_jax.ppo.update import Updater
from mlagent_jax.sft.step import compile_train_step
from mlagent_jax.training.checkpoints import Checkpoints
from mlagent_jax.training.optimisers import MU_DTYPES, OPTIMISERS, OptimiserConfig, make_optimiser
from mlagent_jax.training.rounding import round_stochastically
from mlagent_jax.training.state import TrainState, abstract_state, init_state, take_step

MODEL = Qwen2Config(32, 16, 24, 2, 2, 1, dtype="bfloat16")
LORA = LoRAConfig(rank=2)
EVERY = list(itertools.product(OPTIMISERS, MU_DTYPES))


def dtypes(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, jnp.dtype(leaf.dtype)), tree)


def test_ppo_rounds_first_moments_where_the_code_does():
    """Each operation rounds its own result; a fusion that keeps more digits would change a third of the moments.

    Of adapters, since the expected moments are computed operation by operation, which is slow for many arrays.
    """
    model = MODEL.replace(hidden_size=64, lora=LoRAConfig(rank=4, targets=("q_proj",)))
    config = OptimiserConfig(learning_rate=1e-2, mu_dtype="bfloat16")
    config = PPOConfig(critic="shared", actor_optimiser=config, critic_optimiser=config)
    params = jax.jit(lambda: init_params(model, 0))()
    updater = Updater(config, model, params, mesh_of_one())
    functions, states = compile_update(config, model, mesh_of_one()), updater.initial_states()
    expected = states = jax.tree.map(jnp.copy, states)
    for seed in range(2):
        rng = np.random.default_rng(seed)
        gradients = jax.tree.map(
            lambda p, rng=rng: jnp.float32(0.01 * rng.normal(size=p.shape)), params_of(states)
        )
        expected, _ = apply_gradients(functions.optimisers, expected, gradients, True)
        states, _ = functions.apply_gradients(jax.tree.map(jnp.copy, states), gradients, True)
    pairs = zip(_moments(states.actor.opt_state), _moments(expected.actor.opt_state), strict=True)
    moments = [(got, wanted) for (_, got), (_, wanted) in pairs if got.dtype == jnp.bfloat16]
    assert moments
    other = np.concatenate([np.ravel(np.asarray(got) != np.asarray(wanted)) for got, wanted in moments])
    assert other.mean() < 0.01


def mesh_of_one():
    return make_mesh(MeshConfig(), jax.devices()[:1])


@pytest.mark.parametrize(("name", "mu_dtype"), EVERY)
@pytest.mark.parametrize("param_dtype", ["float32", "bfloat16"])
def test_a_state_keeps_its_dtypes_through_steps_and_a_restore(tmp_path, name, mu_dtype, param_dtype):
    config = OptimiserConfig(name=name, learning_rate=1e-2, mu_dtype=mu_dtype, weight_decay=0.1)
    optimiser = make_optimiser(config, 10)
    params = {
        "embed": jnp.ones((4, 6), param_dtype),
        "layers": {
            "up_proj": {"kernel": jnp.ones((2, 6, 3), param_dtype), "bias": jnp.ones((2, 3), param_dtype)}
        },
        "head": {"kernel": jnp.ones(6), "bias": jnp.ones(())},
    }
    mesh = mesh_of_one()
    shardings = jax.tree.map(lambda _: batch_sharding(mesh).update(spec=jax.P()), params)
    first = init_state(params, shardings, optimiser, mesh)
    assert dtypes(first) == dtypes(abstract_state(params, shardings, optimiser, mesh))
    moments = {str(path[-1]): leaf.dtype for path, leaf in _moments(first.opt_state)}
    assert set(moments) == {"mu", "nu"} and moments["mu"] == mu_dtype and moments["nu"] == "float32"

    step = jax.jit(lambda state, gradients: take_step(optimiser, state, gradients))
    gradients = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.3, jnp.float32), params)
    second = step(first, gradients)
    third = step(second, gradients)
    assert dtypes(first) == dtypes(second) == dtypes(third)
    assert step._cache_size() == 1, "no second program for another dtype"
    with Checkpoints(tmp_path, ("training",)) as checkpoints:
        checkpoints.save(2, training=third)
        restored = checkpoints.restore(training=first)["training"]
    assert dtypes(restored) == dtypes(third)
    jax.tree.map(np.testing.assert_array_equal, restored, third)


def _moments(opt_state):
    named = jax.tree_util.tree_leaves_with_path(opt_state)
    return [
        ([key.name], leaf)
        for path, leaf in named
        for key in path
        if getattr(key, "name", "") in ("mu", "nu") and leaf.ndim
    ]


@pytest.mark.parametrize("name", OPTIMISERS)
@pytest.mark.parametrize(("param_dtype", "mu_dtype"), [("float32", "float32"), ("bfloat16", "bfloat16")])
@pytest.mark.parametrize("lora", [None, LORA], ids=["whole", "adapters"])
@pytest.mark.parametrize("critic", CRITICS)
def test_every_optimiser_steps_actor_and_critic(name, mu_dtype, param_dtype, lora, critic):
    """With shapes only, in the function that PPO compiles: the outputs have the dtypes of the inputs."""
    rule = OptimiserConfig(name=name, mu_dtype=mu_dtype)
    model = MODEL.replace(param_dtype=param_dtype, lora=lora)
    config = PPOConfig(critic=critic, actor_optimiser=rule, critic_optimiser=rule)
    functions = compile_update(config, model, mesh_of_one())
    states = functions.states
    gradients = jax.eval_shape(functions.zero_gradients, params_of(states))
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(gradients)} == {"float32"}
    apply_gradients = functions.apply_gradients.__wrapped__
    after, _ = jax.eval_shape(lambda s, g: apply_gradients(s, g, True), states, gradients)
    assert dtypes(after) == dtypes(states)
    small = [states.critic.params["head"]] + ([states.actor.params] if lora else [])
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(small)} == {"float32"}


FAST = (("adamw", None), ("muon", LORA))  # each optimiser, and each kind of parameters


@pytest.mark.parametrize(
    ("name", "lora"),
    [
        pytest.param(name, lora, marks=[] if (name, lora) in FAST else pytest.mark.slow)
        for name in OPTIMISERS
        for lora in (None, LORA)
    ],
)
def test_every_optimiser_fine_tunes_with_one_program(name, lora):
    model = MODEL.replace(param_dtype="bfloat16", lora=lora)
    optimiser = make_optimiser(OptimiserConfig(name=name, learning_rate=1e-2, mu_dtype="bfloat16"), 3)
    mesh = mesh_of_one()
    shardings = param_shardings(model, mesh)
    params = with_adapters(model, jax.jit(lambda: init_params(model.replace(lora=None), 0))(), 0)
    state = init_state(put(params, shardings), shardings, optimiser, mesh)
    planned = abstract_state(abstract_params(model), shardings, optimiser, mesh)
    assert dtypes(state) == dtypes(planned), "the planner counts the state that training has"
    step = compile_train_step(model, optimiser, jax.tree.map(lambda leaf: leaf.sharding, planned))
    rows = np.arange(16, dtype=np.int32).reshape(1, 2, 8)
    batch = {"tokens": rows, "targets": rows, "positions": rows % 8, "segment_ids": np.ones_like(rows)}
    batch = put(batch | {"action": np.ones(rows.shape, bool)}, batch_sharding(mesh, leading=1))
    for _ in range(2):
        state, metrics = step(state, batch)
    assert dtypes(state) == dtypes(planned) and np.isfinite(metrics["loss"])
    assert step._cache_size() == 1


@pytest.mark.parametrize("mu_dtype", MU_DTYPES)
def test_second_moments_decay_for_bfloat16_parameters(mu_dtype):
    """A gradient of 1 once, and then none for 1,000 steps: in bfloat16 0.999 x rounds back to x."""
    optimiser = make_optimiser(OptimiserConfig(clip_norm=0.0, mu_dtype=mu_dtype), 10)
    params = {"embed": jnp.ones((2, 2), jnp.bfloat16)}

    def run(state, gradient):
        return optimiser.update({"embed": jnp.full((2, 2), gradient)}, state, params)[1], None

    gradients = jnp.array([1.0] + [0.0] * 1000)
    state, _ = jax.lax.scan(run, optimiser.init(params), gradients)
    (nu,) = [leaf for (name,), leaf in _moments(state) if name == "nu"]
    np.testing.assert_allclose(nu, 0.001 * 0.999**1000, rtol=1e-3)


def test_first_moments_in_bfloat16_follow_those_in_float32():
    rng = np.random.default_rng(0)
    gradients = (0.5 + rng.normal(size=(200, 8))).astype(np.float32)
    found = {}
    for mu_dtype in MU_DTYPES:
        optimiser = make_optimiser(OptimiserConfig(clip_norm=0.0, mu_dtype=mu_dtype), 10)
        params = {"embed": jnp.ones(8)}
        state, _ = jax.lax.scan(
            lambda s, g, o=optimiser, p=params: (o.update({"embed": g}, s, p)[1], None),
            optimiser.init(params),
            gradients,
        )
        (mu,) = [leaf for (name,), leaf in _moments(state) if name == "mu"]
        found[mu_dtype] = np.asarray(mu, np.float32)
    np.testing.assert_allclose(found["bfloat16"], found["float32"], atol=0.02)


def test_updates_below_the_rounding_of_bfloat16_arrive_on_average():
    """Steps of 1e-4 from 1, where the next number below is 4e-3 away."""
    optimiser = make_optimiser(OptimiserConfig(learning_rate=1e-4, clip_norm=0.0), 100)
    params = {"embed": jnp.ones((64, 64), jnp.bfloat16)}
    step = jax.jit(lambda state: take_step(optimiser, state, {"embed": jnp.ones((64, 64))}))
    state = TrainState(params, optimiser.init(params), jnp.int32(0))
    for _ in range(50):
        state = step(state)
    change = 1 - np.asarray(state.params["embed"], np.float64)
    # Each number moved in steps of 4e-3 at random: their mean has a deviation of sqrt(5e-3 * 4e-3) / 64.
    np.testing.assert_allclose(change.mean(), 50 * 1e-4, atol=4 * np.sqrt(5e-3 * 4e-3) / 64)


def test_rounding_is_to_a_neighbour_and_right_on_average():
    x = np.random.default_rng(0).normal(size=20_000).astype(np.float32)
    given = np.asarray([0.0, -0.0, 1.0, np.inf, -np.inf, np.nan], np.float32)
    kept = round_stochastically(jnp.asarray(given), jax.random.key(0))
    np.testing.assert_array_equal(np.asarray(kept, np.float32), given)
    rounded = np.asarray(round_stochastically(jnp.asarray(x), jax.random.key(1)), np.float64)
    assert (np.abs(rounded - x) < np.abs(x) * 2**-7).all()
    assert abs((rounded / x - 1).mean()) < 4 * 2**-7 / np.sqrt(len(x))


def test_parameters_that_cannot_be_trained_are_refused():
    optimiser = make_optimiser(OptimiserConfig(), 1)
    with pytest.raises(UserError, match=r"parameters in float16 cannot be trained.*bfloat16, float32"):
        optimiser.init({"embed": jnp.ones(2, jnp.float16)})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"mu_dtype": "float16"}, r"optimiser\.mu_dtype is 'float16', but must be one of float32, bfloat16"),
        ({"mu_dtype": "bfloat16", "b1": 0.99}, r"optimiser\.b1 is 0\.99, but first moments in bfloat16"),
    ],
)
def test_moments_that_cannot_be_kept_are_refused(wrong, message):
    with pytest.raises(UserError, match=message):
        OptimiserConfig(**wrong).validate()

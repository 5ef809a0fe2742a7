import jax.numpy as jnp
import numpy as np
import pytest

from mlagent_jax.errors import UserError
from mlagent_jax.training.optimisers import OptimiserConfig, make_optimiser, make_schedule

PARAMS = {
    "embed": jnp.ones((4, 3)),
    "layers": {"q_proj": {"kernel": jnp.ones((2, 3, 3)), "bias": jnp.ones((2, 3))}},
    "norm": {"scale": jnp.ones((3,))},
}


def rates(total=10, **config):
    schedule = make_schedule(OptimiserConfig(learning_rate=1.0, **config), total)
    return [round(float(schedule(step)), 4) for step in range(total)]


def test_schedules():
    assert rates() == [1.0] * 10
    assert rates(warmup_steps=4)[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates(warmup_steps=1)[:2] == [1.0, 1.0]
    assert rates(schedule="linear", final_fraction=0.5)[::5] == [1.0, 0.75]
    cosine = rates(schedule="cosine", warmup_steps=2, final_fraction=0.1)
    assert cosine[:3] == [0.5, 1.0, 1.0]
    np.testing.assert_allclose(cosine[2 + 4], (1 + 0.1) / 2, atol=1e-4)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_weight_decay_is_on_matrices_only(name):
    config = OptimiserConfig(name=name, learning_rate=0.1, weight_decay=0.5, clip_norm=0.0)
    optimiser = make_optimiser(config, 10)
    nothing = {
        "embed": jnp.zeros((4, 3)),
        "layers": {"q_proj": {"kernel": jnp.zeros((2, 3, 3)), "bias": jnp.zeros((2, 3))}},
        "norm": {"scale": jnp.zeros((3,))},
    }
    updates, _ = optimiser.update(nothing, optimiser.init(PARAMS), PARAMS)
    np.testing.assert_allclose(updates["layers"]["q_proj"]["kernel"], -0.05, rtol=1e-5)
    assert not updates["layers"]["q_proj"]["bias"].any() and not updates["norm"]["scale"].any()


def test_clipping_is_by_the_global_norm():
    config = OptimiserConfig(learning_rate=1.0, clip_norm=1.0, eps=1.0, b1=0.0, b2=0.0)
    optimiser = make_optimiser(config, 10)
    gradient = {"embed": jnp.full((4, 3), 100.0)}
    updates, _ = optimiser.update(gradient, optimiser.init(gradient), gradient)
    clipped = 1 / np.sqrt(12)
    np.testing.assert_allclose(updates["embed"], -clipped / (clipped + 1), rtol=1e-4)


def test_muon_orthogonalises_each_layer_of_a_stack():
    optimiser = make_optimiser(OptimiserConfig(name="muon", learning_rate=1.0), 10)
    left, _, right = np.linalg.svd(np.random.default_rng(0).normal(size=(2, 8, 8)))
    gradient = {"kernel": jnp.asarray(left * np.linspace(1, 10, 8) @ right, jnp.float32)}
    updates, _ = optimiser.update(gradient, optimiser.init(gradient), gradient)
    for layer in np.asarray(updates["kernel"]):
        singular = np.linalg.svd(layer, compute_uv=False)
        assert singular.max() / singular.min() < 2  # 10 in the gradient, 1 for an orthogonal matrix


def test_unknown_names_are_refused():
    with pytest.raises(UserError, match=r"optimiser\.name is 'sgd', but must be one of adamw, muon"):
        make_optimiser(OptimiserConfig(name="sgd"), 1)

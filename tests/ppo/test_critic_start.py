"""The critic's start, compared with scikit-learn's ridge regression on the same features."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
from sklearn.linear_model import Ridge

from mlagent_jax.errors import UserError
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.qwen2 import forward, init_params
from mlagent_jax.models.sharding import param_shardings
from mlagent_jax.parallel.mesh import MeshConfig, make_mesh, put
from mlagent_jax.ppo.config import PPOConfig
from mlagent_jax.ppo.critic_start import fit_value_head
from mlagent_jax.ppo.rollout import demonstration
from mlagent_jax.text.chat import Encoded

MODEL = Qwen2Config(
    vocab_size=40,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    tie_word_embeddings=True,
)
CONFIG = PPOConfig(row_length=64, micro_rows=2, critic="shared", critic_start="expert", critic_ridge=0.02)


def episodes():
    """Two actions each, with fractional rewards; one has no reward."""
    rng = np.random.default_rng(0)
    for number in range(9):
        length = int(rng.integers(20, 30))
        tokens = rng.integers(0, 40, length).astype(np.int32)
        ranges = ((3, 7), (12, 12 + number % 4 + 1))
        rewards = [float(rng.normal()), None if number == 4 else float(rng.normal())]
        yield Encoded(tokens, np.zeros(length, bool), ranges), rewards


def test_it_is_the_ridge_regression_of_rewards_on_hidden_states():
    mesh = make_mesh(MeshConfig())
    params = put(init_params(MODEL, 3), param_shardings(MODEL, mesh))
    rollouts = [demonstration(encoded, rewards) for encoded, rewards in episodes()]
    head = fit_value_head(CONFIG, MODEL, params, rollouts, mesh)

    features, targets = [], []
    for encoded, rewards in episodes():
        positions = np.arange(len(encoded.tokens), dtype=np.int32)[None]
        hidden = np.asarray(
            forward(MODEL, params, encoded.tokens[None], positions, np.ones_like(positions)), np.float64
        )[0]
        for (start, stop), reward in zip(encoded.response_ranges, rewards, strict=True):
            if reward is not None:
                features += list(hidden[start - 1 : stop - 1])  # where the action's tokens are predicted
                targets += [reward] * (stop - start)
    expected = Ridge(alpha=CONFIG.critic_ridge * len(targets), solver="cholesky").fit(features, targets)

    np.testing.assert_allclose(head["kernel"], expected.coef_, atol=1e-4)
    assert head["bias"] == pytest.approx(expected.intercept_, abs=1e-4)


def test_an_unknown_start_is_refused():
    with pytest.raises(UserError, match=r"ppo\.critic_start is 'ones'"):
        PPOConfig(critic_start="ones").validate()


def test_a_fit_without_a_unique_solution_is_refused():
    """With hidden states of 0 and no penalty, every kernel fits equally well."""
    mesh = make_mesh(MeshConfig())
    params = put(jax.tree.map(np.zeros_like, init_params(MODEL, 3)), param_shardings(MODEL, mesh))
    tokens = np.zeros(8, np.int32)
    one = demonstration(Encoded(tokens, np.zeros(8, bool), ((3, 4),)), [1.0])
    with pytest.raises(UserError, match=r"with ppo\.critic_ridge 0\.0: raise it"):
        fit_value_head(dataclasses.replace(CONFIG, critic_ridge=0.0), MODEL, params, [one], mesh)

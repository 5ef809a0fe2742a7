"""If PPO diverges, the error names the network; checkpoints saved before that are finite and are kept."""

import dataclasses

import bandit
import jax
import numpy as np
import pytest

from mlagent_jax.finite import NotFiniteError
from mlagent_jax.parallel.mesh import MeshConfig, make_mesh
from mlagent_jax.ppo import guards
from mlagent_jax.ppo.actor_critic import ActorCritic
from mlagent_jax.ppo.rollout import ActionSample, Rollout
from mlagent_jax.training.optimisers import OptimiserConfig
from mlagent_jax.training.stage_checkpoints import load_params

SMALL = {"batch_size": 8, "minibatch_size": 8, "epochs": 1, "updates": 3}


def saved_updates(folder):
    return sorted(int(path.name) for path in (folder / "checkpoints").iterdir())


def test_a_critic_that_diverges_is_named_and_never_saved(tmp_path):
    wild = OptimiserConfig(learning_rate=3e38)
    with pytest.raises(NotFiniteError) as error:
        bandit.run(tmp_path / "wild", critic_optimiser=wild, critic="separate", **SMALL)
    message = str(error.value)
    assert message.startswith("the PPO critic diverged: its ") and "after update 1" in message
    assert "at learning rate 3e+38" in message and "Lower ppo.critic_optimiser.learning_rate" in message
    assert "actor" not in message
    assert saved_updates(tmp_path / "wild") == []
    assert not (tmp_path / "wild" / "rollouts.jsonl").exists()
    assert not (tmp_path / "wild" / "metrics.jsonl").exists()


# The fast tests have the critic's divergence as a whole, and the actor's guard by what it is given.
@pytest.mark.slow
def test_an_actor_that_diverges_is_named_and_checkpoints_are_kept(tmp_path):
    bandit.run(tmp_path, **SMALL | {"updates": 1})
    before = load_params(tmp_path, bandit.MODEL, make_mesh(MeshConfig()))
    wild = OptimiserConfig(learning_rate=3e38)
    named = r"the PPO actor diverged: .* Lower ppo\.actor_optimiser\.learning_rate"
    with pytest.raises(NotFiniteError, match=named):
        bandit.run(tmp_path, actor_optimiser=wild, **SMALL)
    assert saved_updates(tmp_path) == [1]
    after = load_params(tmp_path, bandit.MODEL, make_mesh(MeshConfig()))
    jax.tree.map(np.testing.assert_array_equal, after, before)


def experience(**changes):
    names = ("old_logprobs", "reference_logprobs", "old_values", "advantages", "returns")
    arrays = {name: np.ones((2, 3), np.float32) for name in names}
    return arrays | {name: np.full((2, 3), value, np.float32) for name, value in changes.items()}


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"old_values": np.nan},
            "the PPO critic diverged: its values are not finite at update 2, at learning rate",
        ),
        ({"old_values": 1e30}, "the PPO critic diverged: the squared errors of its values are"),
        ({"advantages": np.inf}, "the PPO critic diverged: the advantages"),
        (
            {"old_logprobs": np.nan, "old_values": np.nan},
            "the PPO actor diverged: the log-probs of its tokens",
        ),
        ({"reference_logprobs": -np.inf}, "the PPO actor diverged: the log-probs under its reference"),
    ],
)
def test_the_error_names_the_network_that_diverged(changes, message):
    everywhere, nowhere = np.ones((2, 3), bool), np.zeros((2, 3), bool)
    with pytest.raises(NotFiniteError, match=message):
        guards.check_experience(experience(**changes), everywhere, "at update 2", ActorCritic(0.1, 0.2))
    guards.check_experience(experience(**changes), nowhere, "at update 2", ActorCritic(0.1, 0.2))


@pytest.mark.parametrize("shared_trunk", [False, True])
def test_a_critic_that_trains_the_actors_trunk_is_named_too(shared_trunk):
    """A critic at 1e15 with `critic_trunk_gradient`: values are finite, but the shared trunk's gradient is not."""
    everywhere = np.ones((2, 3), bool)
    names = ("logprobs", "policy_loss", "entropy", "value_loss")
    aux = {name: np.ones((2, 3), np.float32) for name in names}
    norms = {f"{name}_grad_norm": np.float32(1) for name in ("actor", "critic")} | {
        f"{name}_{part}_finite": np.bool_(True)
        for name in ("actor", "critic")
        for part in ("params", "optimiser")
    }
    norms["actor_grad_norm"] = np.float32(np.inf)
    with pytest.raises(NotFiniteError, match="its gradient's norm is not finite") as error:
        guards.check_step(aux, everywhere, norms, "in update 2", ActorCritic(0.1, 0.2), shared_trunk)
    assert ("ppo.critic_optimiser.learning_rate" in str(error.value)) == shared_trunk
    assert "ppo.actor_optimiser.learning_rate" in str(error.value)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"reward": float("nan")}, r"1 of 1 rewards are not finite at update 1 \(the first is nan\)"),
        ({"logprobs": (-0.5, float("-inf"))}, "the PPO actor diverged: the log-probs that it sampled with"),
    ],
)
def test_what_was_sampled_must_be_finite(change, message):
    action = dataclasses.replace(ActionSample((1, 3), (-0.5, -0.5), 0.5, "success", False), **change)
    with pytest.raises(NotFiniteError, match=message):
        guards.check_rollouts([Rollout(np.arange(3, dtype=np.int32), (action,))], "at update 1", 0.1)

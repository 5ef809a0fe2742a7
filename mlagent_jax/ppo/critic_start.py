"""The critic's start: a value head fitted to the rewards of the expert's actions.

PPO at this scale has few updates, too few for a critic of zeros to learn which states are worth more. The expert's
steps are states of the same pool with known rewards, and the SFT model that the actor starts from imitates the expert.
So a least-squares fit to these rewards is close to the value function of the first policy.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float

from mlagent_jax.errors import UserError
from mlagent_jax.finite import require_finite
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.params import Params
from mlagent_jax.models.qwen2 import forward
from mlagent_jax.nn.precision import AS_WRITTEN
from mlagent_jax.parallel.mesh import batch_sharding, put, replicated
from mlagent_jax.ppo.batch import make_batch
from mlagent_jax.ppo.config import PPOConfig
from mlagent_jax.ppo.rollout import Rollout


def fit_value_head(
    config: PPOConfig, model: Qwen2Config, params: Params, demonstrations: Sequence[Rollout], mesh: Mesh
) -> Params:
    """Ridge regression of each action's reward on the trunk's hidden state at each of its tokens.

    params: the trunk's, on `mesh`. demonstrations: rollouts whose actions have rewards; their log-probs are not used.
    The penalty is `config.critic_ridge` per token; the bias is not penalised. Raises UserError if the regression has no
    unique solution.
    """
    arrays = make_batch(config, demonstrations, update=0).arrays
    targets = _reward_of_each_token(arrays["rewards"], arrays["mask"])
    hidden_states = jax.jit(
        lambda p, rows: forward(model, p, rows["tokens"], rows["positions"], rows["segment_ids"], mesh),
        out_shardings=replicated(mesh),
        compiler_options=AS_WRITTEN,
    )
    size = model.hidden_size + 1
    gram, moment, count = np.zeros((size, size)), np.zeros(size), 0
    for start in range(0, len(targets), config.micro_rows):
        chunk = slice(start, start + config.micro_rows)
        rows = {name: arrays[name][chunk] for name in ("tokens", "positions", "segment_ids")}
        hidden = np.asarray(hidden_states(params, put(rows, batch_sharding(mesh))), np.float64)
        chosen = hidden[arrays["mask"][chunk]]
        features = np.concatenate([chosen, np.ones((len(chosen), 1))], axis=1)
        gram += features.T @ features
        moment += features.T @ targets[chunk][arrays["mask"][chunk]]
        count += len(chosen)
    penalty = np.diag([config.critic_ridge * count] * model.hidden_size + [0.0])
    try:
        solution = np.linalg.solve(gram + penalty, moment).astype(np.float32)
    except np.linalg.LinAlgError:
        raise UserError(
            f"the critic's start cannot be fitted to {count} of the expert's tokens with ppo.critic_ridge "
            f"{config.critic_ridge}: raise it, for example to 0.01, or set ppo.critic_start to 'zero'"
        ) from None
    head = {"kernel": solution[:-1], "bias": solution[-1]}
    require_finite(
        {"hidden states": gram, "value head": head},
        "the critic's start",
        "check the weights that PPO starts from",
    )
    return head


def _reward_of_each_token(
    rewards: Float[np.ndarray, "B T"], mask: Bool[np.ndarray, "B T"]
) -> Float[np.ndarray, "B T"]:
    """The reward of each action token's action, which `rewards` holds at the action's last token only.

    The mask of an action is a run of positions that ends where its reward is, followed by a gap.
    """
    spread = np.zeros(rewards.shape, np.float64)
    for row, columns in enumerate(mask):
        current = 0.0
        for column in range(len(columns) - 1, -1, -1):
            if not columns[column]:
                continue
            if column + 1 == len(columns) or not columns[column + 1]:
                current = float(rewards[row, column])
            spread[row, column] = current
    return spread

"""A whole PPO update of a batch of packed rows, on a mesh."""

from __future__ import annotations

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Shaped

from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.lora import join, partition
from mlagent_jax.models.params import Params
from mlagent_jax.parallel.mesh import batch_sharding, put
from mlagent_jax.ppo import guards
from mlagent_jax.ppo.actor_critic import ActorCritic, LearningRates, TrainStates, params_of
from mlagent_jax.ppo.batch import Arrays, PPOBatch
from mlagent_jax.ppo.compilation import compile_update, optimiser_steps
from mlagent_jax.ppo.config import PPOConfig
from mlagent_jax.ppo.kl import kl_estimate
from mlagent_jax.ppo.step import EXPERIENCE_INPUTS, LOSS_INPUTS, Rows, Scalars
from mlagent_jax.training.optimisers import make_schedule
from mlagent_jax.training.state import init_state


class Updater:
    """Everything about an update that stays the same from one to the next."""

    def __init__(self, config: PPOConfig, model: Qwen2Config, reference: Params, mesh: Mesh):
        """reference: the SFT model's parameters, from which actor and critic start; the same on every process.

        With `model.lora` it includes adapters. Actor and critic then start with copies of these, and the rest is
        frozen.
        """
        self._config, self._model, self._mesh = config, model, mesh
        steps = optimiser_steps(config)
        self._schedules = ActorCritic(
            make_schedule(config.actor_optimiser, steps), make_schedule(config.critic_optimiser, steps)
        )
        self._functions = compile_update(config, model, mesh)
        shapes = params_of(self._functions.states)
        self._shardings = shapes.map(lambda tree: jax.tree.map(lambda leaf: leaf.sharding, tree))
        layout = jax.tree.map(lambda leaf: leaf.sharding, self._functions.reference)
        self._reference = put(reference, layout)
        self._frozen = self._reference if model.lora else {}

    def initial_states(self, value_head: Params | None = None) -> TrainStates:
        """Actor and critic at step 0, in buffers of their own. value_head: the critic's; by default one of zeros."""
        actor = partition(self._reference)[0]
        critic = self._functions.init_critic(actor)
        if value_head is not None:
            critic |= {"head": put(value_head, self._shardings.critic["head"])}
        optimisers, shardings = self._functions.optimisers, self._shardings
        return ActorCritic(
            init_state(actor, shardings.actor, optimisers.actor, self._mesh),
            init_state(critic, shardings.critic, optimisers.critic, self._mesh),
        )

    def policy_params(self, states: TrainStates) -> Params:
        """The whole model to sample from and to save: the actor, with the frozen weights if it consists of adapters."""
        return join(states.actor.params, self._frozen)

    def compute_experience(self, states: TrainStates, batch: PPOBatch, rows: slice | None = None) -> Arrays:
        """`step.compute_experience` of all rows, or of some, on the host.

        rows: has a start and a stop; its length is a multiple of `micro_rows`.
        """
        params = params_of(states)
        rows = rows or slice(0, len(batch.arrays["tokens"]))
        parts = [
            self._functions.compute_experience(
                params, self._reference, self._to_device(_rows_of(batch.arrays, chunk), EXPERIENCE_INPUTS)
            )
            for chunk in self._micro_batches(rows.start, rows.stop)
        ]
        return _to_host(parts)

    def learning_rates(self, states: TrainStates) -> LearningRates:
        """The learning rates of each network's last step; before the first step, of the first."""
        actor, critic = self._schedules.actor, self._schedules.critic
        return ActorCritic(
            float(actor(max(int(states.actor.step) - 1, 0))),
            float(critic(max(int(states.critic.step) - 1, 0))),
        )

    def update(
        self, states: TrainStates, batch: PPOBatch, experience: Arrays, update: int
    ) -> tuple[TrainStates, Arrays, dict[str, float]]:
        """Runs all epochs. Returns the new states (the old ones are donated), auxiliary outputs and a few metrics.

        The auxiliary outputs are those of `step.loss` in the last epoch, each row's from when its gradient was taken,
        and the "advantages" that the loss used. Raises NotFiniteError for the first step that diverges.
        """
        config = self._config
        arrays = batch.arrays | experience
        if config.normalise_advantages:
            arrays["advantages"] = normalised(arrays["advantages"], arrays["mask"])
        minibatches = [
            [self._to_device(_rows_of(arrays, chunk), LOSS_INPUTS) for chunk in self._micro_batches(*rows)]
            for rows in batch.minibatches
        ]
        train_actor = update >= config.critic_warmup
        rng = np.random.default_rng([config.seed, 7, update])
        for epochs_done in range(1, config.epochs + 1):
            order = rng.permutation(len(minibatches))
            states, aux, norms = self._epoch(states, batch, minibatches, order, train_actor, update)
            more = epochs_done < config.epochs
            if config.target_kl and more and self._kl_to_old(states, batch, arrays) > config.target_kl:
                break
        rates = self.learning_rates(states)
        scalars = {
            "actor/grad_norm": float(norms["actor_grad_norm"]),
            "critic/grad_norm": float(norms["critic_grad_norm"]),
            "actor/lr": rates.actor if train_actor else 0.0,
            "critic/lr": rates.critic,
            "training/ppo_epochs": epochs_done,
        }
        return states, aux | {"advantages": arrays["advantages"]}, scalars

    def _epoch(
        self,
        states: TrainStates,
        batch: PPOBatch,
        minibatches: list[list[Rows]],
        order: np.ndarray,
        train_actor: bool,
        update: int,
    ) -> tuple[TrainStates, Arrays, Scalars]:
        """One optimiser step for each minibatch, in this order; the last result is that of the last step."""
        config = self._config
        shared_trunk = config.critic == "shared" and config.critic_trunk_gradient
        outputs: dict[int, Arrays] = {}
        for number in order.tolist():
            states, outputs[number], norms = self._step(states, minibatches[number], train_actor)
            mask = batch.arrays["mask"][slice(*batch.minibatches[number])]
            rates = self.learning_rates(states)
            guards.check_step(outputs[number], mask, norms, f"in update {update + 1}", rates, shared_trunk)
        aux = {
            name: np.concatenate([outputs[number][name] for number in range(len(minibatches))])
            for name in outputs[0]
        }
        return states, aux, norms

    def _step(
        self, states: TrainStates, minibatch: list[Rows], train_actor: bool
    ) -> tuple[TrainStates, Arrays, Scalars]:
        params = params_of(states)
        total, outputs = self._functions.zero_gradients(params), []
        for rows in minibatch:
            total, aux = self._functions.accumulate_gradients(params, self._frozen, total, rows)
            outputs.append(aux)
        on_host = _to_host(outputs)
        states, scalars = self._functions.apply_gradients(states, total, train_actor)
        return states, on_host, scalars

    def _kl_to_old(self, states: TrainStates, batch: PPOBatch, arrays: Arrays) -> float:
        """The KL from the old policy to the current one, over the whole batch."""
        mask = arrays["mask"]
        now = self.compute_experience(states, batch)["old_logprobs"]
        return float(np.mean(kl_estimate(arrays["old_logprobs"][mask], now[mask], "k3")))

    def _micro_batches(self, start: int, stop: int) -> list[slice]:
        size = self._config.micro_rows
        return [slice(first, first + size) for first in range(start, stop, size)]

    def _to_device(self, arrays: Arrays, names: tuple[str, ...]) -> Rows:
        on_device: Rows = put({name: arrays[name] for name in names}, batch_sharding(self._mesh))
        return on_device


def _rows_of(arrays: Arrays, rows: slice) -> dict[str, Shaped[np.ndarray, "b T"]]:
    return {name: array[rows] for name, array in arrays.items()}


def normalised(
    advantages: Float[np.ndarray, "B T"], mask: Bool[np.ndarray, "B T"]
) -> Float[np.ndarray, "B T"]:
    """Mean 0 and deviation 1 over the masked tokens, 0 elsewhere; float32."""
    chosen = advantages[mask].astype(np.float64)
    scaled = (advantages - chosen.mean()) / (chosen.std() + 1e-8)
    return np.where(mask, scaled, 0.0).astype(np.float32)


def _to_host(parts: list[dict[str, Float[Array, "b T"]]]) -> Arrays:
    return {name: np.concatenate([np.asarray(part[name]) for part in parts]) for name in parts[0]}

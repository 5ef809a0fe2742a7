"""PPO's compiled functions, and how a batch of packed rows goes through them on a mesh."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.lora import join, partition
from mlagent_jax.models.qwen2 import abstract_params
from mlagent_jax.models.value_head import value_head_axes
from mlagent_jax.nn.precision import AS_WRITTEN
from mlagent_jax.parallel.mesh import batch_sharding, param_shardings, put, replicated
from mlagent_jax.parallel.rules import spec
from mlagent_jax.ppo import guards, step
from mlagent_jax.ppo.batch import Arrays, PPOBatch
from mlagent_jax.ppo.config import PPOConfig
from mlagent_jax.ppo.kl import kl_estimate
from mlagent_jax.ppo.step import Learners
from mlagent_jax.training.optimisers import make_optimiser, make_schedule
from mlagent_jax.training.state import abstract_state, init_state, with_shardings

# Arrays of a batch that are of no use in measuring it, or in its gradient.
UNMEASURED = frozenset({"weights", "sampler_logprobs"})
UNTRAINED = frozenset({"sampler_logprobs", "rewards", "ends"})


class Functions(NamedTuple):
    """What a PPO update compiles; see `step` for what each computes. None holds a concrete array.

    make_critic(actor), measure(params, reference, rows), zeros(params), gradients(params, frozen, total, rows),
    apply(states, gradients, actor_too), where params, total and gradients are Learners of trees.
    optimisers: Learners. states: Learners of TrainStates, as shapes with shardings. reference: likewise.
    """

    make_critic: Any
    measure: Any
    zeros: Any
    gradients: Any
    apply: Any
    optimisers: Learners
    states: Learners
    reference: Any


def optimiser_steps(config: PPOConfig) -> int:
    """Of a whole run."""
    return config.updates * config.epochs * -(-config.batch_size // config.minibatch_size)


def compile_update(config: PPOConfig, model: Qwen2Config, mesh: Mesh) -> Functions:
    """The jitted functions for parameters laid out over `mesh`, whose devices need not be there."""
    steps = optimiser_steps(config)
    optimisers = Learners(
        make_optimiser(config.actor_optimiser, steps), make_optimiser(config.critic_optimiser, steps)
    )
    actor = partition(param_shardings(model, mesh))[0]
    shardings = Learners(actor, _critic_shardings(config, actor, mesh))
    everywhere = replicated(mesh)

    def ppo_make_critic(actor: Any) -> Any:
        return step.init_critic(config, model, actor)

    def ppo_measure(params: Learners, reference: Any, rows: step.Rows) -> dict[str, jax.Array]:
        return step.measure(config, model, params, reference, rows, mesh)

    def ppo_gradients(params: Learners, frozen: Any, total: Learners, rows: step.Rows) -> Any:
        return step.add_gradients(config, model, params, frozen, total, rows, mesh)

    def ppo_apply(states: Learners, gradients: Learners, actor_too: bool) -> Any:
        return step.apply_gradients(optimisers, states, gradients, actor_too)

    reference = with_shardings(abstract_params(model), param_shardings(model, mesh))
    actor_params = partition(abstract_params(model))[0]
    params = Learners(actor_params, jax.eval_shape(ppo_make_critic, actor_params))
    states = Learners(
        *(abstract_state(*parts, mesh) for parts in zip(params, shardings, optimisers, strict=True))
    )
    state_shardings = jax.tree.map(lambda leaf: leaf.sharding, states)
    return Functions(
        make_critic=jax.jit(ppo_make_critic, out_shardings=shardings.critic),
        measure=jax.jit(ppo_measure, out_shardings=everywhere, compiler_options=AS_WRITTEN),
        zeros=jax.jit(step.zero_gradients, out_shardings=shardings),
        gradients=jax.jit(
            ppo_gradients,
            donate_argnums=2,
            out_shardings=(shardings, everywhere),
            compiler_options=AS_WRITTEN,
        ),
        apply=jax.jit(
            ppo_apply,
            donate_argnums=0,
            static_argnums=2,
            out_shardings=(state_shardings, everywhere),
            compiler_options=AS_WRITTEN,
        ),
        optimisers=optimisers,
        states=states,
        reference=reference,
    )


class Updater:
    """Everything about an update that stays the same from one to the next."""

    def __init__(self, config: PPOConfig, model: Qwen2Config, reference: Any, mesh: Mesh):
        """reference: the SFT model's parameters, from which actor and critic start; the same on every process.

        With `model.lora` it has adapters: actor and critic start with copies of these, and all else stays as it is.
        """
        self._config, self._model, self._mesh = config, model, mesh
        steps = optimiser_steps(config)
        self._schedules = Learners(
            make_schedule(config.actor_optimiser, steps), make_schedule(config.critic_optimiser, steps)
        )
        self._functions = compile_update(config, model, mesh)
        states = self._functions.states
        self._shardings = Learners(*(jax.tree.map(lambda leaf: leaf.sharding, s.params) for s in states))
        layout = jax.tree.map(lambda leaf: leaf.sharding, self._functions.reference)
        self._reference = put(reference, layout)
        self._frozen = self._reference if model.lora else {}

    def initial_states(self, value_head: Any = None) -> Learners:
        """Actor and critic at step 0, in buffers of their own. value_head: in place of one of zeros."""
        actor = partition(self._reference)[0]
        critic = self._functions.make_critic(actor)
        if value_head is not None:
            critic |= {"head": put(value_head, self._shardings.critic["head"])}
        parts = zip((actor, critic), self._shardings, self._functions.optimisers, strict=True)
        return Learners(*(init_state(tree, shardings, rule, self._mesh) for tree, shardings, rule in parts))

    def policy_params(self, states: Learners) -> Any:
        """The actor as a whole model, its adapters beside the frozen weights: what is sampled and handed on."""
        return join(states.actor.params, self._frozen)

    def measure(self, states: Learners, batch: PPOBatch, rows: slice | None = None) -> Arrays:
        """`step.measure` of every row, or of some of them, on the host, [R,T] each.

        rows: with a start and a stop; a multiple of `micro_rows`.
        """
        params = Learners(states.actor.params, states.critic.params)
        names = set(batch.arrays) - UNMEASURED
        rows = rows or slice(0, len(batch.arrays["tokens"]))
        parts = [
            self._functions.measure(params, self._reference, self._rows(batch.arrays, chunk, names))
            for chunk in self._chunks(rows.start, rows.stop)
        ]
        return _to_host(parts)

    def learning_rates(self, states: Learners) -> Learners:
        """Of each one's last step; before the first, of that one."""
        return Learners(
            *(
                float(schedule(max(int(state.step) - 1, 0)))
                for schedule, state in zip(self._schedules, states, strict=True)
            )
        )

    def update(
        self, states: Learners, batch: PPOBatch, measured: Arrays, update: int
    ) -> tuple[Learners, Arrays, dict[str, float]]:
        """All epochs. Returns the new states, `step.loss`'s second result by row, and a few scalars.

        The second result is that of the last epoch, each row as it was when its gradient was taken, with the
        "advantages" that the loss was given. Raises NotFiniteError for the first step that diverged.
        """
        config = self._config
        arrays = batch.arrays | measured
        if config.normalise_advantages:
            arrays["advantages"] = normalised(arrays["advantages"], arrays["mask"])
        names = set(arrays) - UNTRAINED
        on_device = [
            [self._rows(arrays, chunk, names) for chunk in self._chunks(*minibatch)]
            for minibatch in batch.minibatches
        ]
        actor_too = update >= config.critic_warmup
        order = np.random.default_rng([config.seed, 7, update])
        epochs_done = 0
        for _ in range(config.epochs):
            outcomes: dict[int, Arrays] = {}
            for number in order.permutation(len(on_device)):
                states, outcomes[number], norms = self._step(states, on_device[number], actor_too)
                mask = arrays["mask"][slice(*batch.minibatches[number])]
                rates = self.learning_rates(states)
                shared_trunk = config.critic == "shared" and config.critic_trunk_gradient
                when = f"in update {update + 1}"
                guards.check_step(outcomes[number], mask, norms, when, rates, shared_trunk)
            epochs_done += 1
            learnt = {
                name: np.concatenate([outcomes[i][name] for i in range(len(on_device))])
                for name in outcomes[0]
            }
            more = epochs_done < config.epochs
            if config.target_kl and more and self._moved(states, batch, arrays) > config.target_kl:
                break
        rates = self.learning_rates(states)
        scalars = {
            "actor/grad_norm": float(norms["actor_grad_norm"]),
            "critic/grad_norm": float(norms["critic_grad_norm"]),
            "actor/lr": rates.actor if actor_too else 0.0,
            "critic/lr": rates.critic,
            "training/ppo_epochs": epochs_done,
        }
        return states, learnt | {"advantages": arrays["advantages"]}, scalars

    def _step(
        self, states: Learners, minibatch: list[step.Rows], actor_too: bool
    ) -> tuple[Learners, Arrays, dict[str, jax.Array]]:
        params = Learners(states.actor.params, states.critic.params)
        total, outcomes = self._functions.zeros(params), []
        for rows in minibatch:
            total, outcome = self._functions.gradients(params, self._frozen, total, rows)
            outcomes.append(outcome)
        learnt = _to_host(outcomes)
        states, norms = self._functions.apply(states, total, actor_too)
        return states, learnt, norms

    def _moved(self, states: Learners, batch: PPOBatch, arrays: Arrays) -> float:
        """The KL from the old policy to the policy as it is now, after the epoch's last step."""
        mask = arrays["mask"]
        now = self.measure(states, batch)["old_logprobs"]
        return float(np.mean(kl_estimate(arrays["old_logprobs"][mask], now[mask], "k3")))

    def _chunks(self, start: int, stop: int) -> list[slice]:
        size = self._config.micro_rows
        return [slice(first, first + size) for first in range(start, stop, size)]

    def _rows(self, arrays: Arrays, chunk: slice, names: set[str]) -> step.Rows:
        chosen = {name: arrays[name][chunk] for name in sorted(names)}
        rows: step.Rows = put(chosen, batch_sharding(self._mesh))
        return rows


def normalised(advantages: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Mean 0 and deviation 1 over the masked tokens, 0 elsewhere; float32."""
    chosen = advantages[mask].astype(np.float64)
    scaled = (advantages - chosen.mean()) / (chosen.std() + 1e-8)
    return np.where(mask, scaled, 0.0).astype(np.float32)


def _critic_shardings(config: PPOConfig, actor: dict[str, Any], mesh: Mesh) -> dict[str, Any]:
    head = {name: NamedSharding(mesh, spec(axes)) for name, axes in value_head_axes().items()}
    if config.critic != "separate":
        return {"head": head}
    return {"head": head, "trunk": {name: part for name, part in actor.items() if name != "lm_head"}}


def _to_host(parts: list[dict[str, jax.Array]]) -> Arrays:
    return {name: np.concatenate([np.asarray(part[name]) for part in parts]) for name in parts[0]}

"""The programs of a PPO update, with the shapes they are called with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PyTree

from mlagent_jax.generate.config import EngineConfig
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.lora import join, partition
from mlagent_jax.parallel.mesh import batch_sharding
from mlagent_jax.planner.flops import ForwardFlops, executed_training_flops, forward_flops, training_flops
from mlagent_jax.planner.programs import Program, Work, bytes_per_device, shaped
from mlagent_jax.planner.sampling_programs import SamplingPlan
from mlagent_jax.planner.traffic import forward_bytes, training_bytes
from mlagent_jax.ppo.actor_critic import Gradients, Parameters, params_of
from mlagent_jax.ppo.batch import make_batch
from mlagent_jax.ppo.compilation import CompiledUpdate, compile_update
from mlagent_jax.ppo.config import PPOConfig
from mlagent_jax.ppo.loop import check
from mlagent_jax.ppo.rollout import ActionSample, Rollout
from mlagent_jax.ppo.step import EXPERIENCE_INPUTS, LOSS_INPUTS


def ppo_programs(
    config: PPOConfig, model: Qwen2Config, engine: EngineConfig, max_new_tokens: int, mesh: Mesh
) -> list[Program]:
    """The programs of sampling, then those of experience and training, all on the whole mesh.

    Counts are those of an update in which every rollout fills a row, which is the most there can be.
    Raises UserError for settings that the PPO loop refuses.
    """
    check(config, engine, mesh)
    functions = compile_update(config, model, mesh)
    sampling = _sampling_plan(config, model, engine, max_new_tokens, functions, mesh)
    return [*sampling.programs(), *_UpdatePlan(config, model, functions, mesh).programs()]


def _sampling_plan(
    config: PPOConfig,
    model: Qwen2Config,
    engine: EngineConfig,
    max_new_tokens: int,
    functions: CompiledUpdate,
    mesh: Mesh,
) -> SamplingPlan:
    states, reference = functions.states, functions.reference
    training = {
        "optimiser": (states.actor.opt_state, states.critic.opt_state),
        "critic": states.critic.params,
    }
    return SamplingPlan(
        model=model,
        engine=engine,
        batch_size=config.batch_size,
        max_new_tokens=max_new_tokens,
        mesh=mesh,
        params=join(states.actor.params, reference if model.lora else {}),
        beside=training | {"actor": states.actor.params, "reference": reference},
        # With adapters, the frozen weights are part of the policy, and the reference adds only its own adapters.
        beside_load=training | {"reference": partition(reference)[0]},
    )


@dataclass(frozen=True)
class _UpdatePlan:
    """Computing the experience from the rollouts, and training on it."""

    config: PPOConfig
    model: Qwen2Config
    functions: CompiledUpdate
    mesh: Mesh

    def programs(self) -> list[Program]:
        return [self._compute_experience(), self._accumulate_gradients(), self._apply_gradients()]

    def _compute_experience(self) -> Program:
        flops = 2 * self._forward.total + (self._trunks - 1) * self._critic_forward.total
        traffic = (1 + self._trunks) * forward_bytes(self.model, self._tokens, self._tensor)
        return Program(
            name="ppo log-probs and values",
            function=self.functions.compute_experience,
            arguments=(self._params, self.functions.reference, self._experience_rows),
            parts={
                "parameters": self._params,
                "reference": self.functions.reference,
                "batch": self._experience_rows,
            },
            beside={"optimiser": self._optimisers},
            devices=self.mesh.size,
            work=Work(flops, flops, traffic),
            runs_per_step=self._passes,
        )

    def _accumulate_gradients(self) -> Program:
        reference = self.functions.reference
        frozen = reference if self.model.lora else {}
        experience = jax.eval_shape(
            self.functions.compute_experience, self._params, reference, self._experience_rows
        )
        rows = self._rows(self._example | experience, LOSS_INPUTS)
        return Program(
            name="ppo gradients",
            function=self.functions.accumulate_gradients,
            arguments=(self._params, frozen, self._gradient_shapes, rows),
            parts={"parameters": (self._params, frozen), "gradients": self._gradient_shapes, "batch": rows},
            beside={"optimiser": self._optimisers} | ({} if frozen else {"reference": reference}),
            devices=self.mesh.size,
            work=self._gradient_work,
            runs_per_step=self._passes * self.config.epochs,
        )

    def _apply_gradients(self) -> Program:
        states, gradients = self.functions.states, self._gradient_shapes
        minibatches = ceil(self.config.batch_size / self.config.minibatch_size)
        return Program(
            name="ppo apply",
            function=self.functions.apply_gradients,
            arguments=(states, gradients, True),
            parts={"parameters": self._params, "optimiser": self._optimisers, "gradients": gradients},
            beside={"reference": self.functions.reference},
            devices=self.mesh.size,
            work=Work(memory_bytes=2 * bytes_per_device(states) + bytes_per_device(gradients)),
            runs_per_step=minibatches * self.config.epochs,
        )

    @property
    def _gradient_work(self) -> Work:
        model, forward, critic, more = self.model, self._forward, self._critic_forward, self._trunks - 1
        traffic = self._trunks * training_bytes(model, self._tokens, self._tensor)
        return Work(
            training_flops(model, forward) + more * training_flops(model, critic),
            executed_training_flops(model, forward) + more * executed_training_flops(model, critic),
            traffic + 2 * bytes_per_device(self._gradient_shapes),
        )

    @property
    def _trunks(self) -> int:
        """Trunks that are trained; a value head costs next to nothing."""
        return 2 if self.config.critic == "separate" else 1

    @property
    def _params(self) -> Parameters:
        return params_of(self.functions.states)

    @property
    def _optimisers(self) -> tuple[PyTree, PyTree]:
        states = self.functions.states
        return states.actor.opt_state, states.critic.opt_state

    @cached_property
    def _gradient_shapes(self) -> Gradients:
        shapes: Gradients = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.float32, sharding=leaf.sharding), self._params
        )
        return shapes

    @property
    def _shape(self) -> tuple[int, int]:
        """The shape of the rows that are computed at a time."""
        return self.config.micro_rows, self.config.row_length

    @property
    def _passes(self) -> int:
        """The number of passes over the rows of a batch."""
        return ceil(self.config.batch_size / self.config.micro_rows)

    @property
    def _tokens(self) -> float:
        """The tokens that one device computes at a time."""
        return self.config.micro_rows * self.config.row_length / self.mesh.size

    @property
    def _tensor(self) -> int:
        return self.mesh.shape["tensor"]

    @property
    def _forward(self) -> ForwardFlops:
        return forward_flops(self.model, *self._shape)

    @property
    def _critic_forward(self) -> ForwardFlops:
        return forward_flops(self.model, *self._shape, predicted=0)

    @cached_property
    def _experience_rows(self) -> dict[str, jax.ShapeDtypeStruct]:
        return self._rows(self._example, EXPERIENCE_INPUTS)

    @cached_property
    def _example(self) -> dict[str, np.ndarray]:
        """A batch as the loop makes it, for the names and dtypes of its arrays."""
        rollout = Rollout(np.zeros(2, np.int32), (ActionSample((1, 2), (0.0,), 0.0, "", False),))
        return make_batch(replace(self.config, row_length=2, micro_rows=1), [rollout], update=0).arrays

    def _rows(self, arrays: Mapping[str, Any], names: Sequence[str]) -> dict[str, jax.ShapeDtypeStruct]:
        chosen = {name: arrays[name] for name in names}
        return shaped(chosen, self._shape, batch_sharding(self.mesh))

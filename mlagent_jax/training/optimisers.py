"""Optimisers and learning-rate schedules by name, from optax."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from mlagent_jax.errors import UserError
from mlagent_jax.fields import check, setting

OPTIMISERS = ("adamw", "muon")
SCHEDULES = ("constant", "linear", "cosine")
MU_DTYPES = ("float32", "bfloat16")
# With a larger b1, less than a 20th of a gradient is added at a time, and rounding keeps a bfloat16 moment 8% off.
_MAX_B1_IN_BFLOAT16 = 0.95
TRAINABLE = frozenset({"float32", "bfloat16"})
_ORTHOGONALISED = frozenset({"kernel", "lora_a", "lora_b"})
_DECAYED = frozenset({"kernel", "embed", "lm_head", "lora_a", "lora_b"})


@dataclass(frozen=True)
class OptimiserConfig:
    """One optax chain: clip by global norm, then the optimiser.

    learning_rate: the peak. Muon's matrix updates are scaled to the size of AdamW's (arXiv 2502.16982), so that the
        same value suits both.
    schedule: after `warmup_steps` of linear warm-up, "constant", or "linear" / "cosine" decay to `final_fraction` of
        the peak over the remaining steps.
    clip_norm: limit of the global gradient norm; 0 for no clipping.
    mu_dtype: of the first moments, "float32" or "bfloat16". Second moments are always float32: in bfloat16 x * b2
        rounds back to x, so they would never decay.
    b1, b2, eps: AdamW's. Muon's own momentum is 0.95, as published.
    """

    name: str = setting("adamw", choices=OPTIMISERS)
    learning_rate: float = setting(2e-5, above=0)
    schedule: str = setting("constant", choices=SCHEDULES)
    warmup_steps: int = setting(0, at_least=0)
    final_fraction: float = setting(0.0, at_least=0, at_most=1)
    weight_decay: float = setting(0.0, at_least=0)
    b1: float = setting(0.9, at_least=0, below=1)
    b2: float = setting(0.999, at_least=0, below=1)
    eps: float = setting(1e-8, above=0)
    clip_norm: float = setting(1.0, at_least=0)
    mu_dtype: str = setting("float32", choices=MU_DTYPES)

    def validate(self, where: str = "optimiser") -> None:
        """Raises UserError naming the field and its value."""
        check(self, where)
        if self.mu_dtype == "bfloat16" and self.b1 > _MAX_B1_IN_BFLOAT16:
            raise UserError(
                f"{where}.b1 is {self.b1}, but first moments in bfloat16 only follow the gradients up to "
                f"{_MAX_B1_IN_BFLOAT16}; lower it, or set {where}.mu_dtype to float32"
            )


def make_schedule(config: OptimiserConfig, total_steps: int) -> optax.Schedule:
    """The learning rate at each step, counted from 0; the decay ends at `total_steps`."""
    peak, end = config.learning_rate, config.learning_rate * config.final_fraction
    rest = max(total_steps - config.warmup_steps, 1)
    after: optax.Schedule
    if config.schedule == "constant":
        after = optax.constant_schedule(peak)
    elif config.schedule == "linear":
        after = optax.linear_schedule(peak, end, rest)
    else:
        after = optax.cosine_decay_schedule(peak, rest, config.final_fraction)
    if not config.warmup_steps:
        return after
    # From peak / steps, not from 0: every step should have an effect.
    first = peak / config.warmup_steps
    warmup = optax.linear_schedule(first, peak, max(config.warmup_steps - 1, 1))
    return optax.join_schedules([warmup, after], [config.warmup_steps])


def make_optimiser(config: OptimiserConfig, total_steps: int) -> optax.GradientTransformation:
    """The optimiser that `config` describes. Weight decay applies to matrices only, not to norms or biases.

    An update keeps the dtypes of the state's arrays, and updates are float32. `init` raises UserError for parameters of
    a dtype that cannot be trained.
    """
    config.validate()
    schedule = make_schedule(config, total_steps)
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    if config.name == "adamw":
        rule = optax.adamw(
            schedule,
            config.b1,
            config.b2,
            config.eps,
            mu_dtype=config.mu_dtype,
            weight_decay=config.weight_decay,
            mask=_matrices,
        )
    else:
        rule = contrib.muon(
            schedule,
            weight_decay=config.weight_decay,
            adam_b1=config.b1,
            adam_b2=config.b2,
            eps=config.eps,
            mu_dtype=config.mu_dtype,
            consistent_rms=0.2,
            muon_weight_dimension_numbers=_muon_axes,
        )
    return _in_float32(optax.chain(clip, rule))


def _in_float32(rule: optax.GradientTransformation) -> optax.GradientTransformation:
    """`rule` with parameters and gradients cast to float32, from which optax takes the dtypes of the moments."""

    def init(params: optax.Params) -> optax.OptState:
        untrainable = {str(leaf.dtype) for leaf in jax.tree.leaves(params)} - TRAINABLE
        if untrainable:
            raise UserError(
                f"parameters in {', '.join(sorted(untrainable))} cannot be trained; set config.model.shape.param_dtype "
                f"to one of {', '.join(sorted(TRAINABLE))}"
            )
        return rule.init(optax.tree.cast(params, jnp.float32))

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        return rule.update(optax.tree.cast(updates, jnp.float32), state, optax.tree.cast(params, jnp.float32))

    return optax.GradientTransformation(init, update)


def _leaf_name(path: tuple[Any, ...]) -> str:
    return str(getattr(path[-1], "key", path[-1])) if path else ""


def _matrices(params: optax.Params) -> Any:
    """True for kernels and embeddings. By name, because norms and biases stacked over layers have two axes as well."""
    return jax.tree_util.tree_map_with_path(lambda path, _: _leaf_name(path) in _DECAYED, params)


def _muon_axes(params: optax.Params) -> Any:
    """Which parameters Muon updates: the layers' matrices [..., in, out], kernels or adapters.

    AdamW updates embeddings and vectors, as published; these include all of a critic that is only a value head.
    """

    def axes(path: tuple[Any, ...], leaf: Any) -> contrib.MuonDimensionNumbers | None:
        matrix = _leaf_name(path) in _ORTHOGONALISED and leaf.ndim >= 2
        return contrib.MuonDimensionNumbers(-2, -1) if matrix else None

    return jax.tree_util.tree_map_with_path(axes, params)

"""The two networks that PPO trains, as a typed pair."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import jax
import optax

from mlagent_jax.models.params import Params
from mlagent_jax.training.state import TrainState

T = TypeVar("T")
R = TypeVar("R")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ActorCritic(Generic[T]):
    """One value for the actor and one of the same type for the critic. It is a pytree."""

    actor: T
    critic: T

    def map(self, function: Callable[[T], R]) -> ActorCritic[R]:
        """Applies `function` to the actor's value and to the critic's."""
        return ActorCritic(function(self.actor), function(self.critic))


# The critic's parameters are {"head": ...}, with a "trunk" beside it if the critic is a separate network.
Parameters = ActorCritic[Params]
Gradients = ActorCritic[Params]
Shardings = ActorCritic[dict[str, Any]]
TrainStates = ActorCritic[TrainState]
Optimisers = ActorCritic[optax.GradientTransformation]
LearningRates = ActorCritic[float]


def params_of(states: TrainStates) -> Parameters:
    return states.map(lambda state: state.params)

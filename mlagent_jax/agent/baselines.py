"""Agents that nothing trains and that need no endpoint, by the name that `config.evaluate.agents` takes."""

from __future__ import annotations

from collections.abc import Callable

from mlagent_jax.agent.expert import NO_SLIPS, ScriptedExpert
from mlagent_jax.agent.policy import Policy
from mlagent_jax.agent.random_policy import RandomPolicy
from mlagent_jax.agent.starter import StarterPolicy


def _expert_without_slips(thought: bool) -> Policy:
    return ScriptedExpert(NO_SLIPS, thought, name="expert_without_slips")


BASELINES: dict[str, Callable[[bool], Policy]] = {
    "starter": StarterPolicy,
    "random": RandomPolicy,
    "expert_without_slips": _expert_without_slips,
}
"""Each is called with whether a response has all six fields; see `PromptFormat.thought`."""

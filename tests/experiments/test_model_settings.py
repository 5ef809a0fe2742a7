"""The models of roles, as settings of a run."""

from __future__ import annotations

from tiny import settings_with

from mlagent_jax.llm.config import ROLES

CODER_32B = {
    "backend": "endpoint",
    "base_url": "http://localhost:8000/v1",
    "model": "Qwen/Qwen2.5-Coder-32B-Instruct",
}


def test_a_budget_is_kept_where_calls_have_prices_or_are_ones_own():
    priced = {
        f"models.expert.{name}": value for name, value in {"backend": "endpoint", "model": "gpt"}.items()
    }
    priced |= {"models.budget": 5.0, "models.expert.price.input": 0.15}
    assert settings_with(**priced, **{"models.coder": CODER_32B}).models.budget == 5.0
    assert settings_with(**{"models.budget": 5.0}).models.budget == 5.0


def test_each_role_has_a_model_of_its_own():
    settings = settings_with(
        **{
            "models.expert": {"backend": "endpoint", "model": "gpt-4o-mini"},
            "models.coder": CODER_32B,
            "evaluate.agents": ("starter", "llm"),
            "models.agent": {"model": "gpt-4o"},
        }
    )
    assert [settings.models.of(role).model for role in ROLES] == [
        "gpt-4o-mini",
        CODER_32B["model"],
        "",
        "gpt-4o",
    ]
    assert [settings.models.of(role).temperature for role in ROLES] == [0.7, 0.0, 1.0, 0.7]

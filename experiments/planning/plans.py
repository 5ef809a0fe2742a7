"""Plans of a run's configuration on a target, and settings to try if it does not fit."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jax.sharding import Mesh
from ml_collections import ConfigDict

from experiments.cli.config_flags import with_changes
from experiments.settings import ModelSettings, Settings, SettingsError
from mlagent_jax.errors import UserError
from mlagent_jax.models.config import Qwen2Config, qwen2_5
from mlagent_jax.parallel.mesh import batch_degree, make_mesh
from mlagent_jax.planner.plan import Plan, make_plan
from mlagent_jax.planner.ppo_programs import ppo_programs
from mlagent_jax.planner.programs import Program
from mlagent_jax.planner.sft_programs import sft_programs
from mlagent_jax.planner.targets import Target, target_devices

STAGES = ("sft", "ppo")
Changes = Mapping[str, Any]  # fields of a configuration by their full names, with their new values
Report = Callable[[str], None]  # receives a line on the progress

# Second moments and the sums of gradients stay in float32 (`training.optimisers`).
_BFLOAT16: dict[str, Any] = {
    "model.shape.param_dtype": "bfloat16",
    "sft.optimiser.mu_dtype": "bfloat16",
    "ppo.actor_optimiser.mu_dtype": "bfloat16",
    "ppo.critic_optimiser.mu_dtype": "bfloat16",
}

# What `--suggest` tries, in this order, until one fits; each with one row per device at a time.
ALTERNATIVES: tuple[tuple[str, Changes], ...] = (
    ("one row per device at a time", {}),
    ("each row split over 2 devices", {"mesh.sequence": 2}),
    ("each row split over 4 devices", {"mesh.sequence": 4}),
    ("parameters and first moments in bfloat16", _BFLOAT16),
    (
        "each row split over 4 devices, parameters and first moments in bfloat16",
        {"mesh.sequence": 4, **_BFLOAT16},
    ),
    (
        "adapters of rank 16 on parameters in bfloat16",
        {"model.lora.rank": 16, "model.shape.param_dtype": "bfloat16"},
    ),
    (
        "a value head on the actor's trunk as critic",
        {"ppo.critic": "shared"},
    ),
    (
        "the same with each row split over 4 devices, parameters and first moments in bfloat16",
        {"ppo.critic": "shared", "mesh.sequence": 4, **_BFLOAT16},
    ),
)


def assignments(changes: Changes) -> list[str]:
    """Each change as `name=value`."""
    return [f"{name}={value}" for name, value in changes.items()]


@dataclass(frozen=True)
class TargetConfig:
    """A configuration adapted to a target. changes: the settings that the run needs in addition."""

    settings: Settings
    changes: Changes
    mesh: Mesh


def adapt(
    config: ConfigDict, target: Target, stages: Sequence[str], extra: Changes | None = None
) -> TargetConfig:
    """Sets the target's attention backend, and micro-batches that its devices can divide.

    extra: changes to make first; micro-batches then have one row per device. Gradients of micro-batches are summed, so
    their size affects memory, not results. Raises UserError if the target's compiler is missing or no mesh fits.
    """
    changes = {"model.shape.attention": target.attention} | dict(extra or {})
    settings = Settings.from_config(with_changes(config, changes))
    mesh = make_mesh(settings.mesh, target_devices(target))
    degree = batch_degree(mesh)
    for stage in stages:
        if extra is not None or getattr(settings, stage).micro_rows % degree:
            changes |= {f"{stage}.micro_rows": degree}
    changes = {name: value for name, value in changes.items() if _value(config, name) != value}
    return TargetConfig(Settings.from_config(with_changes(config, changes)), changes, mesh)


def stage_programs(target_config: TargetConfig, stages: Sequence[str]) -> list[Program]:
    """Raises UserError for settings that the stages refuse."""
    settings, mesh = target_config.settings, target_config.mesh
    model = settings.model.with_adapters(architecture(settings.model))
    programs: list[Program] = []
    if "sft" in stages:
        programs += sft_programs(settings.sft, model, mesh)
    if "ppo" in stages:
        sampling = settings.sampling
        programs += ppo_programs(settings.ppo, model, sampling.engine(), sampling.max_new_tokens, mesh)
    return programs


def architecture(settings: ModelSettings) -> Qwen2Config:
    """The model's architecture, for which no weights are needed. Raises SettingsError if it cannot be determined."""
    try:
        if settings.size:
            return qwen2_5(settings.size, **settings.execution)
        if not settings.pretrained:
            return Qwen2Config(vocab_size=settings.vocab_size, **settings.shape)
        file = Path(settings.pretrained) / "config.json"
        return Qwen2Config.from_hf(json.loads(file.read_text()), **settings.execution)
    except FileNotFoundError:
        raise SettingsError(
            f"{settings.pretrained} has no config.json for the architecture; set config.model.size, such as '7b'"
        ) from None
    except (TypeError, ValueError) as error:
        raise SettingsError(f"config.model: {error}") from error


def plan_stages(
    config: ConfigDict, target: Target, stages: Sequence[str], report: Report
) -> tuple[Plan, Changes]:
    """The plan, and the settings changed for the target. Of settings that cannot work there, the plan is a refusal."""
    target_config = adapt(config, target, stages)
    try:
        return make_plan(stage_programs(target_config, stages), target, report), target_config.changes
    except UserError as error:
        return Plan(target, refusal=str(error)), target_config.changes


@dataclass(frozen=True)
class Candidate:
    """One of `ALTERNATIVES`, its changes for the target, and its plan up to the first function that does not fit."""

    name: str
    changes: Changes
    plan: Plan

    @property
    def problem(self) -> str:
        """Why it does not fit, or ""."""
        return "; ".join(self.plan.problems)

    def to_dict(self) -> dict[str, Any]:
        """The row as JSON; the plan is included if it fits."""
        record = {"name": self.name, "changes": dict(self.changes), "problem": self.problem}
        return record | ({"plan": self.plan.to_dict()} if self.plan.fits else {})


def alternatives(stages: Sequence[str]) -> list[tuple[str, Changes]]:
    """The `ALTERNATIVES` that differ for these stages, with only the fields that these stages use."""
    others = {stage for stage in STAGES if stage not in stages}
    found: list[tuple[str, Changes]] = []
    for name, fields in ALTERNATIVES:
        changes = {field: value for field, value in fields.items() if field.split(".")[0] not in others}
        if changes not in [known for _, known in found]:
            found.append((name, changes))
    return found


def suggest(config: ConfigDict, target: Target, stages: Sequence[str], report: Report) -> list[Candidate]:
    """Tries the alternatives in order until one fits; each is compiled up to the first function that does not fit."""
    candidates: list[Candidate] = []
    for name, changes in alternatives(stages):
        report(f"trying: {name}")
        try:
            target_config = adapt(config, target, stages, changes)
            plan = make_plan(stage_programs(target_config, stages), target, report, stop_at_problem=True)
            candidates.append(Candidate(name, target_config.changes, plan))
        except UserError as error:
            candidates.append(Candidate(name, changes, Plan(target, refusal=str(error))))
        if candidates[-1].plan.fits:
            break
    return candidates


def _value(config: ConfigDict, name: str) -> Any:
    value: Any = config
    for part in name.split("."):
        if not value or part not in value:
            return None
        value = value[part]
    return value

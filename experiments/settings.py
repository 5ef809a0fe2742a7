"""A run's settings: the ConfigDict that flags edit, turned once into dataclasses that say what is wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from ml_collections import ConfigDict

from mlagent_jax.agent.endpoint import EndpointConfig
from mlagent_jax.agent.prompt import PromptFormat
from mlagent_jax.environment.mdp import EpisodeLimits
from mlagent_jax.errors import UserError
from mlagent_jax.exploration.pool import PoolConfig
from mlagent_jax.generate.config import EngineConfig
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.lora import LoRAConfig
from mlagent_jax.parallel.mesh import MeshConfig
from mlagent_jax.ppo.config import PPOConfig
from mlagent_jax.rewards import RewardConfig
from mlagent_jax.sandbox.containers.settings import DockerSettings
from mlagent_jax.sft.config import SFTConfig

T = TypeVar("T")

AGENTS = ("starter", "random", "expert", "sft", "ppo", "endpoint")


class SettingsError(UserError):
    """A setting is wrong: the message names the field, its value and what is expected."""


@dataclass(frozen=True)
class TaskSettings:
    """held_in, held_out: names of folders under `folder`, or paths of task folders anywhere.

    data_dir: prepared data; "" for `mlagent-jax` under the user's cache folder.
    micro: take the small version of each task, of at most 100 training and 100 test rows.
    """

    held_in: tuple[str, ...]
    held_out: tuple[str, ...]
    folder: str = str(Path(__file__).parents[1] / "tasks")
    data_dir: str = ""
    micro: bool = False


@dataclass(frozen=True)
class SandboxSettings:
    """backend: see `open_sandbox`. workers: scripts that run at once.

    allow_unisolated: run even free code without isolation; the user's own decision.
    docker: for backend "docker". ray_address, ray_backend: for backend "ray", see `RaySandbox`.
    """

    backend: str = "auto"
    workers: int = 2
    allow_unisolated: bool = False
    docker: DockerSettings = field(default_factory=DockerSettings)
    ray_address: str = ""
    ray_backend: str = "bubblewrap"


@dataclass(frozen=True)
class AgentSettings:
    """Who acts: "scripted" (the embedded default) or "endpoint", an OpenAI-compatible one."""

    expert: str = "scripted"
    coder: str = "scripted"
    idea_writer: str = "scripted"
    endpoint: EndpointConfig = field(default_factory=EndpointConfig)

    def __post_init__(self) -> None:
        for role in ("expert", "coder", "idea_writer"):
            _one_of(f"config.agents.{role}", getattr(self, role), ("scripted", "endpoint"))


@dataclass(frozen=True)
class CollectSettings:
    """episodes_per_task: expert episodes on each held-in task. batch: episodes under way at once."""

    episodes_per_task: int = 100
    batch: int = 32


@dataclass(frozen=True)
class ModelSettings:
    """What the policy starts from.

    pretrained: a folder with Hugging Face safetensors and tokenizer; or "" for a small model trained from
        nothing, with a SentencePiece tokenizer of `vocab_size` trained on the expert's trajectories.
    size: which Qwen2.5 the pretrained one is, such as "7b": the planner then does without the folder.
    shape: fields of Qwen2Config; for a pretrained model, only those of execution.
    lora: rank, alpha and targets (`models.lora`) of adapters that fine-tuning and then RL train alone; they stay beside
        the model's kernels but in exports, which are float32 then. Empty: both train the whole model.
    """

    pretrained: str = ""
    size: str = ""
    vocab_size: int = 1536
    shape: Mapping[str, Any] = field(default_factory=dict)
    lora: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.lora:
            build(LoRAConfig, self.lora, "config.model.lora")  # so that a mistake is found at the start

    def with_adapters(self, model: Qwen2Config) -> Qwen2Config:
        """`model` as training sees it, with adapters if the configuration asks for them."""
        if not self.lora:
            return model
        return model.replace(lora=build(LoRAConfig, self.lora, "config.model.lora"))


@dataclass(frozen=True)
class SamplingSettings:
    """How much the policy reads and says, in rollouts and evaluation.

    max_new_tokens: of a response. batch: responses at once. max_length: of a state with its response; one that leaves
    no room for a response ends its episode. cache_tokens, chunks, span: as in `generate.config`.
    """

    max_new_tokens: int = 512
    batch: int = 32
    max_length: int = 15_000
    cache_tokens: int = 0
    chunks: tuple[int, ...] = (128, 512, 2048)
    span: int = 512

    def __post_init__(self) -> None:
        if not 0 < self.max_new_tokens < self.max_length:
            raise SettingsError(
                f"config.sampling.max_new_tokens is {self.max_new_tokens}, but must leave a part of max_length "
                f"{self.max_length} to the prompt"
            )
        self.engine()  # so that a mistake is found at the start

    def engine(self) -> EngineConfig:
        return EngineConfig(
            slots=self.batch,
            max_length=self.max_length,
            cache_tokens=self.cache_tokens,
            chunks=self.chunks,
            span=self.span,
        )


@dataclass(frozen=True)
class RLSettings:
    """start: from the "sft" model, or from the "base" it started from (an ablation of the paper).

    rollouts: single actions from the expert's "states" (step-wise), or whole "episodes" (the baseline).
    """

    start: str = "sft"
    rollouts: str = "states"

    def __post_init__(self) -> None:
        _one_of("config.rl.start", self.start, ("sft", "base"))
        _one_of("config.rl.rollouts", self.rollouts, ("states", "episodes"))


@dataclass(frozen=True)
class EvaluateSettings:
    """episodes: K of avg@K and best@K. agents: which to evaluate. temperature: of the model's responses."""

    episodes: int = 8
    agents: tuple[str, ...] = ("starter", "random", "expert", "sft", "ppo")
    temperature: float = 1.0

    def __post_init__(self) -> None:
        for agent in self.agents:
            _one_of("config.evaluate.agents", agent, AGENTS)


@dataclass(frozen=True)
class Settings:
    """Everything that decides a run.

    seeds: if any, a run for each in its place, and a comparison over them.
    """

    seed: int
    seeds: tuple[int, ...]
    tasks: TaskSettings
    sandbox: SandboxSettings
    episode: EpisodeLimits
    prompt: PromptFormat
    reward: RewardConfig
    agents: AgentSettings
    ideas: PoolConfig
    collect: CollectSettings
    model: ModelSettings
    sampling: SamplingSettings
    mesh: MeshConfig
    sft: SFTConfig
    rl: RLSettings
    ppo: PPOConfig
    evaluate: EvaluateSettings

    @classmethod
    def from_config(cls, config: ConfigDict) -> Settings:
        """Raises SettingsError for a missing, unknown or wrong field, by its full name."""
        values = config.to_dict()
        for stage in ("sft", "ppo"):
            values.get(stage, {}).setdefault("seed", values.get("seed"))
        settings = build(cls, values, "config")
        settings.sft.validate()
        settings.ppo.validate()
        settings.mesh.validate()
        return settings


def build(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """A dataclass from a mapping, nested ones too. Raises SettingsError."""
    assert dataclasses.is_dataclass(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for name in values:
        if name not in fields:
            raise SettingsError(f"{where}.{name} is not a setting; there are {', '.join(fields)}")
    kinds = _nested_kinds(cls)
    given: dict[str, Any] = {}
    for name, value in values.items():
        if name in kinds:
            value = build(kinds[name], value, f"{where}.{name}")
        given[name] = tuple(value) if isinstance(value, list) else value
    missing = [
        name
        for name, f in fields.items()
        if name not in given and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise SettingsError(f"{where}.{missing[0]} is missing from the configuration")
    try:
        return cls(**given)
    except UserError:
        raise
    except (TypeError, ValueError) as error:
        raise SettingsError(f"{where}: {error}") from error


def _nested_kinds(cls: type) -> dict[str, type]:
    """Fields of `cls` that are dataclasses themselves."""
    hints = get_type_hints(cls)
    return {
        name: kind
        for name, kind in hints.items()
        if dataclasses.is_dataclass(kind) and isinstance(kind, type)
    }


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise SettingsError(f"{name} is {value!r}, but must be one of {', '.join(allowed)}")

"""A run's settings: the ConfigDict that flags edit, turned once into dataclasses that say all that is wrong.

What a field may be, and whether it defines the run, stands beside it (`mlagent_jax.fields`); what must hold between
fields stands in `__post_init__` where they are of one section, else in `_conflicts`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mlagent_jax.agent.endpoint import EndpointConfig
from mlagent_jax.agent.prompt import PromptFormat
from mlagent_jax.environment.mdp import EpisodeLimits
from mlagent_jax.errors import UserError
from mlagent_jax.exploration.pool import PoolConfig
from mlagent_jax.fields import build, flat, raise_for, setting
from mlagent_jax.generate.config import EngineConfig
from mlagent_jax.models.config import EXECUTION, Qwen2Config
from mlagent_jax.models.lora import LoRAConfig
from mlagent_jax.parallel.mesh import MeshConfig
from mlagent_jax.ppo.config import PPOConfig
from mlagent_jax.rewards import RewardConfig
from mlagent_jax.sandbox.containers.settings import DockerSettings
from mlagent_jax.sandbox.open import BACKENDS
from mlagent_jax.sandbox.ray import BACKENDS as RAY_BACKENDS
from mlagent_jax.sft.config import SFTConfig

AGENTS = ("starter", "random", "expert", "sft", "ppo", "endpoint")
ROLES = ("scripted", "endpoint")
SIZES = ("", "0.5b", "1.5b", "3b", "7b", "14b", "32b", "72b")
MAX_SEED = 2**31 - 1


class SettingsError(UserError):
    """A setting is wrong: the message names the field, its value and what is expected."""


@dataclass(frozen=True)
class TaskSettings:
    """held_in, held_out: names of folders under `folder`, or paths of task folders anywhere.

    data_dir: prepared data; "" for `mlagent-jax` under the user's cache folder.
    micro: take the small version of each task, of at most 100 training and 100 test rows.
    """

    held_in: tuple[str, ...] = setting(filled=True, distinct=True)
    held_out: tuple[str, ...] = setting(distinct=True)
    folder: str = setting(str(Path(__file__).parents[1] / "tasks"), filled=True, defines_run=False)
    data_dir: str = setting("", defines_run=False)
    micro: bool = False

    def __post_init__(self) -> None:
        names: dict[str, str] = {}
        for split in ("held_in", "held_out"):
            for task in getattr(self, split):
                if not task:
                    raise SettingsError(f"config.tasks.{split} has '', which names no task")
                name = Path(task).name
                if name in names:
                    raise SettingsError(
                        f"config.tasks.{split} has {task!r}, and {names[name]} has a task {name!r} too; name it once"
                    )
                names[name] = f"config.tasks.{split}"


@dataclass(frozen=True)
class SandboxSettings:
    """backend: see `open_sandbox`. workers: scripts that run at once.

    allow_unisolated: run even free code without isolation; the user's own decision.
    docker: for backend "docker". ray_address, ray_backend: for backend "ray", see `RaySandbox`.
    """

    backend: str = setting("auto", choices=BACKENDS, defines_run=False)
    workers: int = setting(2, at_least=1, at_most=4096, defines_run=False)
    allow_unisolated: bool = setting(False, defines_run=False)
    docker: DockerSettings = field(default_factory=DockerSettings)
    ray_address: str = setting("", defines_run=False)
    ray_backend: str = setting("bubblewrap", choices=RAY_BACKENDS, defines_run=False)

    @property
    def in_containers(self) -> bool:
        """Whether scripts run with the libraries of an image, and not with this host's."""
        return "docker" in (self.backend, self.ray_backend if self.backend == "ray" else "")


@dataclass(frozen=True)
class AgentSettings:
    """Who acts: "scripted" (the embedded default) or "endpoint", an OpenAI-compatible one."""

    expert: str = setting("scripted", choices=ROLES)
    coder: str = setting("scripted", choices=ROLES)
    idea_writer: str = setting("scripted", choices=ROLES)
    endpoint: EndpointConfig = field(default_factory=EndpointConfig)


@dataclass(frozen=True)
class CollectSettings:
    """episodes_per_task: expert episodes on each held-in task. batch: episodes under way at once."""

    episodes_per_task: int = setting(100, at_least=1)
    batch: int = setting(32, at_least=1, defines_run=False)


@dataclass(frozen=True)
class ModelSettings:
    """What the policy starts from.

    pretrained: a folder with Hugging Face safetensors and tokenizer; or "" for a small model trained from
        nothing, with a SentencePiece tokenizer of `vocab_size` trained on the expert's trajectories.
    size: which Qwen2.5 the pretrained one is, such as "7b": the planner then does without the folder.
    shape: fields of Qwen2Config. What a pretrained model is, its own config.json says: of these it takes only those of
        `EXECUTION`, how it is computed.
    lora: adapters that fine-tuning and then RL train alone; they stay beside the model's kernels but in exports, which
        are float32 then. None: both train the whole model.
    """

    pretrained: str = ""
    size: str = setting("", choices=SIZES)
    vocab_size: int = setting(1536, at_least=1)
    shape: Mapping[str, Any] = setting(
        make=dict, keys=Qwen2Config, without=("vocab_size", "lora", "unused_ids")
    )
    lora: LoRAConfig | None = None

    def __post_init__(self) -> None:
        if self.pretrained or self.size:
            return
        missing = [name for name in _REQUIRED_SHAPE if name not in self.shape]
        if missing:
            raise SettingsError(
                f"config.model.shape.{missing[0]} is missing: a model from nothing needs {', '.join(_REQUIRED_SHAPE)}; "
                "or name one to start from as config.model.pretrained"
            )
        try:
            Qwen2Config(vocab_size=self.vocab_size, **self.shape)
        except ValueError as error:
            raise SettingsError(f"config.model.shape: {error}") from error

    @property
    def execution(self) -> dict[str, Any]:
        """How a model is computed, whatever it is."""
        return {name: value for name, value in self.shape.items() if name in EXECUTION}

    @property
    def unused_shape(self) -> list[str]:
        """Fields of `shape` that a pretrained model has of its own."""
        return sorted(self.shape.keys() - self.execution.keys()) if self.pretrained or self.size else []

    def with_adapters(self, model: Qwen2Config) -> Qwen2Config:
        """`model` as training sees it, with adapters if the configuration asks for them."""
        return model.replace(lora=self.lora) if self.lora else model


_REQUIRED_SHAPE = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
)


@dataclass(frozen=True)
class SamplingSettings:
    """How much the policy reads and says, in rollouts and evaluation.

    max_new_tokens: of a response. batch: responses at once. max_length: of a state with its response; one that leaves
    no room for a response ends its episode. cache_tokens, prefill_chunks, block_kv: as in `generate.config`.
    """

    max_new_tokens: int = setting(512, at_least=1)
    batch: int = setting(32, at_least=1, at_most=65_536, defines_run=False)
    max_length: int = setting(15_000, at_least=2)
    cache_tokens: int = setting(0, at_least=0, defines_run=False)
    prefill_chunks: tuple[int, ...] = setting(
        (128, 512, 2048), at_least=1, filled=True, distinct=True, defines_run=False
    )
    block_kv: int = setting(512, at_least=1, defines_run=False)

    def __post_init__(self) -> None:
        if self.max_new_tokens >= self.max_length:
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
            prefill_chunks=self.prefill_chunks,
            block_kv=self.block_kv,
        )


@dataclass(frozen=True)
class RLSettings:
    """start: from the "sft" model, or from the "base" it started from (an ablation of the paper).

    rollouts: single actions from the expert's "states" (step-wise), or whole "episodes" (the baseline).
    """

    start: str = setting("sft", choices=("sft", "base"))
    rollouts: str = setting("states", choices=("states", "episodes"))


@dataclass(frozen=True)
class EvaluateSettings:
    """episodes: K of avg@K and best@K. agents: which to evaluate. temperature: of the model's responses."""

    episodes: int = setting(8, at_least=1)
    agents: tuple[str, ...] = setting(
        ("starter", "random", "expert", "sft", "ppo"), choices=AGENTS, filled=True, distinct=True
    )
    temperature: float = setting(1.0, at_least=0)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that decides a run.

    seeds: if any, a run for each in its place, and a comparison over them.
    mesh: see `MeshConfig`; results on another one differ in rounding only.
    """

    seed: int = setting(at_least=0, at_most=MAX_SEED)
    seeds: tuple[int, ...] = setting(at_least=0, at_most=MAX_SEED, distinct=True)
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
    mesh: MeshConfig = setting(defines_run=False)
    sft: SFTConfig
    rl: RLSettings
    ppo: PPOConfig
    evaluate: EvaluateSettings

    @classmethod
    def from_config(cls, config: ConfigDict) -> Settings:
        """Raises SettingsError with every missing, unknown or wrong field, by its full name, value and range."""
        values = config.to_dict()
        _derive(values)
        problems: list[str] = []
        settings = build(cls, values, "config", problems)
        if settings is not None:
            problems += _conflicts(settings)
        raise_for(problems, SettingsError)
        assert settings is not None
        return settings

    def to_config(self) -> ConfigDict:
        """The whole tree, defaults too: what `from_config` reads, and what a run stores."""
        tree: dict[str, Any] = {}
        for name, value in flat(self).items():
            *parents, last = name.split(".")
            section = tree
            for parent in parents:
                section = section.setdefault(parent, {})
            section[last] = value
        tree["model"].setdefault("shape", {})
        return ConfigDict(tree)

    def definition(self) -> dict[str, Any]:
        """What makes it this run and no other, by full names and ready for JSON.

        Scripts run the same on this host however they are isolated, but with an image's libraries in containers.
        """
        values = flat(self, "config", only_of_run=True)
        values["config.sandbox.backend"] = "docker" if self.sandbox.in_containers else "this host"
        if not self.sandbox.in_containers:
            values = {name: value for name, value in values.items() if ".sandbox.docker." not in name}
        plain: dict[str, Any] = json.loads(json.dumps(values))
        return plain


def _derive(values: dict[str, Any]) -> None:
    """Fills in what follows from other fields where nobody set it."""
    episode = values.get("episode")
    for section, name, origin, least in (
        ("sft", "seed", values.get("seed"), 0),
        ("ppo", "seed", values.get("seed"), 0),
        ("prompt", "max_steps", episode.get("steps") if isinstance(episode, dict) else None, 1),
    ):
        # What is wrong is reported where it was given, and not again where it would be used.
        fine = isinstance(origin, int) and least <= origin <= MAX_SEED
        if isinstance(values.get(section), dict) and fine:
            values[section].setdefault(name, origin)


def _conflicts(settings: Settings) -> list[str]:
    """What does not go together, a sentence each."""
    found = []
    for check in (settings.sft.validate, settings.ppo.validate, settings.mesh.validate):
        try:
            check()
        except UserError as error:
            found.append(f"config.{error}")
    agents, endpoint = settings.agents, settings.agents.endpoint
    users = [
        f"config.agents.{role}"
        for role in ("expert", "coder", "idea_writer")
        if getattr(agents, role) == "endpoint"
    ]
    users += ["config.evaluate.agents"] if "endpoint" in settings.evaluate.agents else []
    if users and not endpoint.model:
        found.append(
            f"{users[0]} asks for an endpoint, but config.agents.endpoint.model is ''; name the model there"
        )
    for name in ("max_tokens", "coder_max_tokens") if users else ():
        if getattr(endpoint, name) >= endpoint.context_tokens:
            found.append(
                f"config.agents.endpoint.{name} is {getattr(endpoint, name)}, but must leave a part of context_tokens, "
                f"{endpoint.context_tokens}, to the prompt"
            )
    if settings.prompt.max_steps != settings.episode.steps:
        found.append(
            f"config.prompt.max_steps is {settings.prompt.max_steps}, but config.episode.steps is "
            f"{settings.episode.steps}, and agents must be told the truth; set the latter only"
        )
    if settings.rl.start == "base" and "sft" in settings.evaluate.agents:
        found.append(
            "config.evaluate.agents has 'sft', but config.rl.start is 'base', where nothing is fine-tuned; leave it out"
        )
    if settings.ppo.minibatch_size > settings.ppo.batch_size:
        found.append(
            f"config.ppo.minibatch_size is {settings.ppo.minibatch_size}, but must be at most config.ppo.batch_size, "
            f"{settings.ppo.batch_size}"
        )
    return found

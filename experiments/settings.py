"""A run's settings: the ConfigDict that flags edit becomes dataclasses, and all its mistakes are reported at once.

Each field states its valid values and whether it defines the run (`mlagent_jax.fields`). Rules between fields of one
section are in its `__post_init__`, those between sections in `_conflicts`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ml_collections import ConfigDict

from experiments import task_settings
from experiments.task_settings import TaskSettings
from mlagent_jax.agent.baselines import BASELINES
from mlagent_jax.agent.prompt import PromptFormat
from mlagent_jax.controls.bandit_learning import BanditConfig
from mlagent_jax.controls.forward_selection import ConstantConfig
from mlagent_jax.controls.search import SEARCHES
from mlagent_jax.environment.mdp import EpisodeLimits
from mlagent_jax.errors import UserError
from mlagent_jax.exploration.pool import PoolConfig
from mlagent_jax.fields import build, flat, raise_for, setting
from mlagent_jax.generate.config import EngineConfig
from mlagent_jax.llm.config import ModelsConfig
from mlagent_jax.models.config import EXECUTION, Qwen2Config
from mlagent_jax.models.lora import LoRAConfig
from mlagent_jax.parallel.mesh import MeshConfig
from mlagent_jax.ppo.config import PPOConfig
from mlagent_jax.rewards import RewardConfig
from mlagent_jax.sandbox.cache import QUOTA_MB
from mlagent_jax.sandbox.containers.settings import DockerSettings
from mlagent_jax.sandbox.open import BACKENDS
from mlagent_jax.sandbox.ray import BACKENDS as RAY_BACKENDS
from mlagent_jax.sft.config import SFTConfig
from mlagent_jax.tracking.tracker import DEFAULT as DEFAULT_TRACKERS
from mlagent_jax.tracking.tracker import TRACKERS

LLM = "llm"  # the agent of the role config.models.agent
CONTROLS = ("constant", "bandit", *SEARCHES)
FINE_TUNED = ("sft", "sft_filtered")
TRAINED = (*FINE_TUNED, "ppo", "ppo_shuffled")  # agents that a stage of the same name trains
AGENTS = (*BASELINES, *CONTROLS, "expert", *TRAINED, LLM)
VARIANTS = ("greedy", "reworded")
SIZES = ("", "0.5b", "1.5b", "3b", "7b", "14b", "32b", "72b")
MAX_SEED = 2**31 - 1


class SettingsError(UserError):
    """A setting is wrong: the message names the field, its value and what is expected."""


@dataclass(frozen=True)
class SandboxSettings:
    """backend: see `open_sandbox`. workers: scripts that run at once.

    allow_unisolated: run even a language model's code without isolation; only the user can decide that.
    docker: for backend "docker". ray_address, ray_backend: for backend "ray", see `RaySandbox`.
    cache_dir: a folder of executions that all runs which name it share, at the same time too, so that none is paid for
        twice; on a local disk. "" keeps them in the work directory, which then holds all of its run. Snapshots of
        workspaces are always there.
    cache_mb: above this size, in MiB, the least recently used executions are removed.
    """

    backend: str = setting("auto", choices=BACKENDS, defines_run=False)
    workers: int = setting(2, at_least=1, at_most=4096, defines_run=False)
    allow_unisolated: bool = setting(False, defines_run=False)
    docker: DockerSettings = field(default_factory=DockerSettings)
    ray_address: str = setting("", defines_run=False)
    ray_backend: str = setting("bubblewrap", choices=RAY_BACKENDS, defines_run=False)
    cache_dir: str = setting("", defines_run=False)
    cache_mb: float = setting(QUOTA_MB, at_least=1, defines_run=False)

    @property
    def in_containers(self) -> bool:
        """Whether scripts run with the libraries of an image instead of this host's."""
        return "docker" in (self.backend, self.ray_backend if self.backend == "ray" else "")


@dataclass(frozen=True)
class CollectSettings:
    """episodes_per_task: expert episodes on each held-in task. batch: episodes that run at once.

    filtered_share: of each task's episodes, those with the highest public scores that `sft_filtered` is fine-tuned on.
    """

    episodes_per_task: int = setting(100, at_least=1)
    filtered_share: float = setting(0.25, above=0, at_most=1)
    batch: int = setting(32, at_least=1, defines_run=False)


@dataclass(frozen=True)
class ModelSettings:
    """What the policy starts from.

    pretrained: a folder with Hugging Face safetensors and tokenizer; "" for a small model trained from scratch, with a
        SentencePiece tokenizer of `vocab_size` trained on the expert's trajectories.
    size: which Qwen2.5 the pretrained model is, such as "7b"; the planner then does not need the folder.
    shape: fields of Qwen2Config. A pretrained model's architecture comes from its config.json, and only the fields in
        `EXECUTION` (how it is computed) from here.
    lora: adapters; fine-tuning and RL then train nothing else. They are merged into the kernels only in exports, in
        float32. None: both train the whole model.
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
                f"config.model.shape.{missing[0]} is missing: a model trained from scratch needs "
                f"{', '.join(_REQUIRED_SHAPE)}; or set config.model.pretrained to start from one"
            )
        try:
            Qwen2Config(vocab_size=self.vocab_size, **self.shape)
        except ValueError as error:
            raise SettingsError(f"config.model.shape: {error}") from error

    @property
    def execution(self) -> dict[str, Any]:
        """The fields that say how a model is computed, which do not change what it is."""
        return {name: value for name, value in self.shape.items() if name in EXECUTION}

    @property
    def unused_shape(self) -> list[str]:
        """Fields of `shape` that are ignored, since a pretrained model has its own."""
        return sorted(self.shape.keys() - self.execution.keys()) if self.pretrained or self.size else []

    def with_adapters(self, model: Qwen2Config) -> Qwen2Config:
        """The model that is trained: with adapters if the configuration has any."""
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
    """Lengths and batch sizes of sampling, in rollouts and evaluation.

    max_new_tokens: of a response. batch: responses sampled at once. max_length: tokens of a prompt with its response; a
    prompt that leaves no room for a response ends its episode. cache_tokens, prefill_chunks, block_kv: as in
    `generate.config`.
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
                f"config.sampling.max_new_tokens is {self.max_new_tokens}, but must leave room for the prompt in "
                f"max_length, {self.max_length}"
            )
        self.engine()  # raises for settings that the engine refuses

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
    """start: from the "sft" model, or from the "base" model (an ablation of the paper).

    rollouts: single actions from the expert's "states" (step-wise), or whole "episodes" (the baseline).
    """

    start: str = setting("sft", choices=("sft", "base"))
    rollouts: str = setting("states", choices=("states", "episodes"))


@dataclass(frozen=True)
class EvaluateSettings:
    """episodes: K of avg@K and best@K. agents: those evaluated; the ones in `TRAINED` are trained if they are named.

    temperature: of the model's responses. temperatures: if any, each trained agent has the one of these at which its
        mean normalised public gain is highest, over `validation_episodes` on each task of `tasks.validation`.
    variants: in which trained agents are evaluated too, as agents of their own, such as sft_greedy. "greedy": always
        the most likely token, which makes one episode of each task enough. "reworded": the agent reads its history in
        wordings that no trajectory holds; see `RewordedPolicy`.
    constant, bandit: how these two agents choose and learn on the held-in tasks.
    every, along_episodes: evaluation along RL, which the report draws: after every so many updates (0 for never) this
        many episodes on each scored task.
    """

    episodes: int = setting(8, at_least=1)
    agents: tuple[str, ...] = setting(
        ("starter", "random", "expert", "sft", "ppo"), choices=AGENTS, filled=True, distinct=True
    )
    temperature: float = setting(1.0, at_least=0)
    constant: ConstantConfig = field(default_factory=ConstantConfig)
    bandit: BanditConfig = field(default_factory=BanditConfig)
    temperatures: tuple[float, ...] = setting((), at_least=0, distinct=True)
    validation_episodes: int = setting(4, at_least=1)
    variants: tuple[str, ...] = setting((), choices=VARIANTS, distinct=True)
    every: int = setting(0, at_least=0, defines_run=False)
    along_episodes: int = setting(2, at_least=1, defines_run=False)

    @property
    def all_agents(self) -> list[str]:
        """The agents, each followed by its variants."""
        return [
            name
            for agent in self.agents
            for name in (agent, *(f"{agent}_{variant}" for variant in self.variants if agent in TRAINED))
        ]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of a run.

    seeds: if any, one run for each of them instead of one with `seed`, and a comparison over them.
    tracking: where metrics go; see `mlagent_jax.tracking`. metrics.jsonl is always written.
    mesh: see `MeshConfig`; results on another mesh differ by rounding only.
    """

    seed: int = setting(at_least=0, at_most=MAX_SEED)
    seeds: tuple[int, ...] = setting(at_least=0, at_most=MAX_SEED, distinct=True)
    tracking: tuple[str, ...] = setting(DEFAULT_TRACKERS, choices=TRACKERS, distinct=True, defines_run=False)
    tasks: TaskSettings
    sandbox: SandboxSettings
    episode: EpisodeLimits
    prompt: PromptFormat
    reward: RewardConfig
    models: ModelsConfig
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

    def with_seed(self, seed: int) -> Settings:
        """The settings of one of the runs of `seeds`; a stage with a seed of its own keeps it."""
        stages: dict[str, Any] = {
            name: dataclasses.replace(stage, seed=seed)
            for name, stage in (("sft", self.sft), ("ppo", self.ppo))
            if stage.seed == self.seed
        }
        return dataclasses.replace(self, seed=seed, seeds=(), **stages)

    def to_config(self) -> ConfigDict:
        """The whole tree, defaults included: what `from_config` reads, and what a run stores."""
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
        """The settings that define the run, by full names and ready for JSON.

        Of the sandbox, only whether scripts run with this host's libraries or an image's: that can change results, the
        kind of isolation cannot.
        """
        values = flat(self, "config", only_of_run=True)
        values["config.sandbox.backend"] = "docker" if self.sandbox.in_containers else "this host"
        if not self.sandbox.in_containers:
            values = {name: value for name, value in values.items() if ".sandbox.docker." not in name}
        plain: dict[str, Any] = json.loads(json.dumps(values))
        return plain


def _derive(values: dict[str, Any]) -> None:
    """Sets fields that were left out and follow from others."""
    episode = values.get("episode")
    for section, name, origin, least in (
        ("sft", "seed", values.get("seed"), 0),
        ("ppo", "seed", values.get("seed"), 0),
        ("prompt", "max_steps", episode.get("steps") if isinstance(episode, dict) else None, 1),
    ):
        # A wrong value is reported for the field where it was given, not for those derived from it.
        valid = isinstance(origin, int) and least <= origin <= MAX_SEED
        if isinstance(values.get(section), dict) and valid:
            values[section].setdefault(name, origin)
    task_settings.derive(values.get("tasks"))


def _conflicts(settings: Settings) -> list[str]:
    """Settings that contradict each other, one sentence each."""
    found = []
    for check in (settings.sft.validate, settings.ppo.validate, settings.mesh.validate):
        try:
            check()
        except UserError as error:
            found.append(f"config.{error}")
    found += settings.models.conflicts(agent_is_used=LLM in settings.evaluate.agents)
    if settings.prompt.max_steps != settings.episode.steps:
        found.append(
            f"config.prompt.max_steps is {settings.prompt.max_steps}, but config.episode.steps is "
            f"{settings.episode.steps}, and the prompt must state the true limit; set the latter only"
        )
    for agent in FINE_TUNED if settings.rl.start == "base" else ():
        if agent in settings.evaluate.agents:
            found.append(
                f"config.evaluate.agents has {agent!r}, but config.rl.start is 'base', so nothing is fine-tuned; "
                f"leave {agent!r} out"
            )
    reads_expert = settings.rl.rollouts == "states" or settings.ppo.critic_start == "expert"
    found += task_settings.conflicts(settings.tasks, settings.evaluate.agents, reads_expert)
    if settings.ppo.shuffle_rewards and "ppo_shuffled" in settings.evaluate.agents:
        found.append(
            "config.evaluate.agents has 'ppo_shuffled', but config.ppo.shuffle_rewards is True, which makes 'ppo' the "
            "same; leave one of the two out"
        )
    if settings.rl.rollouts == "episodes" and settings.ppo.samples_per_state > 1:
        found.append(
            f"config.ppo.samples_per_state is {settings.ppo.samples_per_state}, but config.rl.rollouts is 'episodes', "
            "which have no state in common; set it to 1, or config.rl.rollouts to 'states'"
        )
    if bool(settings.evaluate.temperatures) != bool(settings.tasks.validation):
        given, missing = "evaluate.temperatures", "tasks.validation"
        if settings.tasks.validation:
            given, missing = missing, given
        found.append(
            f"config.{given} is set, but config.{missing} is empty: a temperature is chosen from the one on the tasks "
            "of the other; set both or neither"
        )
    if settings.ppo.minibatch_size > settings.ppo.batch_size:
        found.append(
            f"config.ppo.minibatch_size is {settings.ppo.minibatch_size}, but must be at most config.ppo.batch_size, "
            f"{settings.ppo.batch_size}"
        )
    return found

"""What the stages of a run share: tasks, sandbox, environments, agents and model, each created on first use."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

from absl import logging
from jax.sharding import Mesh

from experiments.settings import Settings, SettingsError
from experiments.workdir import Workdir
from mlagent_jax.agent.coder import ScriptedCoder
from mlagent_jax.agent.env_runner import EnvRunner
from mlagent_jax.agent.expert import ScriptedExpert
from mlagent_jax.agent.llm_coder import LLMCoder
from mlagent_jax.agent.llm_idea_writer import LLMIdeaWriter
from mlagent_jax.agent.llm_policy import LLMPolicy
from mlagent_jax.agent.model_policy import ModelPolicy
from mlagent_jax.agent.policy import Policy
from mlagent_jax.agent.trajectory import Trajectory
from mlagent_jax.controls.executions import Executions
from mlagent_jax.controls.verbatim_coder import VerbatimCoder
from mlagent_jax.environment.coder import Coder
from mlagent_jax.environment.mdp import Environment
from mlagent_jax.environment.snapshots import SnapshotStore
from mlagent_jax.exploration.expert_data import paraphrase_chats, read_expert_trajectories, trajectory_chats
from mlagent_jax.exploration.ideas import IdeaWriter, ScriptedIdeaWriter
from mlagent_jax.fields import flat
from mlagent_jax.generate.engine import Engine
from mlagent_jax.generate.sampling import SamplingParams
from mlagent_jax.grading.grade import grade
from mlagent_jax.llm.config import ExpertConfig
from mlagent_jax.llm.roles import RoleModels
from mlagent_jax.models.config import Qwen2Config, qwen2_5
from mlagent_jax.models.hf import load_config, load_hf, save_hf
from mlagent_jax.models.params import Params
from mlagent_jax.models.qwen2 import init_params
from mlagent_jax.models.sharding import param_shardings
from mlagent_jax.packages import default_cache_dir
from mlagent_jax.parallel import distributed
from mlagent_jax.parallel.mesh import make_mesh, put
from mlagent_jax.run_folder import LLM as LLM_STAGE
from mlagent_jax.sandbox.cache import CachedSandbox, store_in
from mlagent_jax.sandbox.open import open_sandbox
from mlagent_jax.tasks.loader import load_task
from mlagent_jax.tasks.preparation import prepare_task
from mlagent_jax.tasks.task import Task
from mlagent_jax.text.chat import Message, check_trainable
from mlagent_jax.text.tokenizer import Tokenizer, check_vocabulary, load_tokenizer, unused_ids
from mlagent_jax.tracking.tracker import Tracking
from mlagent_jax.training.progress import ProgressBar
from mlagent_jax.training.stage_checkpoints import load_params


class Experiment:
    """One run. Use it in a `with` statement, which closes its sandboxes and threads."""

    def __init__(self, settings: Settings, workdir: Workdir, first_seed: Workdir | None = None):
        """first_seed: where the first of several runs that differ in their seed has evaluated the untrained agents."""
        self.settings = settings
        self.workdir = workdir
        self.first_seed = first_seed
        self._resources = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if "models" in self.__dict__:
            self.models.interrupt()  # after Ctrl-C, threads may still wait for an answer
        self._resources.close()

    @cached_property
    def mesh(self) -> Mesh:
        return make_mesh(self.settings.mesh)

    @cached_property
    def tracking(self) -> Tracking:
        """The trackers to which the stages log their metrics."""
        return Tracking(self.settings.tracking, self.workdir.name, flat(self.settings, "config"))

    @cached_property
    def data_root(self) -> Path:
        given = self.settings.tasks.data_dir
        return Path(given).expanduser().resolve() if given else default_cache_dir() / "data"

    @cached_property
    def held_in(self) -> list[Task]:
        return self._load(self.settings.tasks.held_in, "held_in")

    @cached_property
    def held_out(self) -> list[Task]:
        return self._load(self.settings.tasks.held_out, "held_out")

    @cached_property
    def validation(self) -> list[Task]:
        return self._load(self.settings.tasks.validation, "validation")

    def tasks_of(self, stage: str) -> list[Task]:
        """The held-in and held-out tasks of "collect", "sft", "rl" or "evaluate"; see `TaskSettings`."""
        names = self.settings.tasks.names(stage)
        return [task for task in (*self.held_in, *self.held_out) if task.name in names]

    @property
    def all_tasks(self) -> list[Task]:
        return [*self.held_in, *self.held_out, *self.validation]

    @cached_property
    def store(self) -> SnapshotStore:
        return SnapshotStore(self.workdir.snapshots)

    @cached_property
    def models(self) -> RoleModels:
        """The language models of the roles that are not scripted."""
        models = RoleModels(
            self.settings.models, self.workdir.stage(LLM_STAGE), self.workdir.metrics(LLM_STAGE)
        )
        return self._resources.enter_context(closing(models))

    @cached_property
    def coder(self) -> Coder:
        if self.models.is_scripted("coder"):
            return ScriptedCoder()
        return LLMCoder(self.models.of("coder"), self.settings.models.coder.answer)

    @cached_property
    def expert(self) -> Policy:
        if self.models.is_scripted("expert"):
            return ScriptedExpert(thought=self.settings.prompt.thought)
        return self._llm_policy("expert", "expert", self.settings.models.expert, with_ideas=True)

    @cached_property
    def llm_policy(self) -> Policy:
        """The model of the role "agent", as an evaluated agent."""
        return self._llm_policy("agent", "llm", self.settings.models.agent, with_ideas=False)

    @cached_property
    def idea_writer(self) -> IdeaWriter:
        if self.models.is_scripted("idea_writer"):
            return ScriptedIdeaWriter(self.settings.seed)
        return LLMIdeaWriter(
            self.models.of("idea_writer"),
            self.settings.seed,
            self.settings.models.idea_writer.structured_output,
        )

    @cached_property
    def sandbox(self) -> CachedSandbox:
        """All executions go through one cache, so a resumed stage repeats none."""
        settings = self.settings.sandbox
        tasks = self.all_tasks  # prepares their data, which must exist before the sandbox mounts the folder
        logging.info(
            "Executions for %d tasks are kept in %s",
            len(tasks),
            settings.cache_dir or self.workdir.executions,
        )
        backend = open_sandbox(
            backend=settings.backend,
            workers=settings.workers,
            data_root=self.data_root / "public",
            allow_unisolated=settings.allow_unisolated,
            writes_free_code=self.coder.writes_free_code,
            docker=settings.docker,
            ray_address=settings.ray_address,
            ray_backend=settings.ray_backend,
        )
        if settings.cache_dir:
            shared = store_in(Path(settings.cache_dir).expanduser().resolve())
            cached = CachedSandbox(backend, shared, quota_mb=settings.cache_mb)
        else:
            cached = CachedSandbox(backend, self.workdir.executions, self.store.blobs, settings.cache_mb)
        return self._resources.enter_context(closing(cached))

    def require_sandbox(self) -> None:
        """Opens the sandbox. Raises SandboxUnavailableError if it cannot run the scripts of these tasks."""
        for task in self.all_tasks:
            self.sandbox.check(task.limits)

    @cached_property
    def env_runner(self) -> EnvRunner:
        models, workers = self.models, self.settings.sandbox.workers
        # An action that waits for the coder's model needs a thread, and no place in the sandbox.
        waiting = 0 if models.is_scripted("coder") else self.settings.models.coder.parallel
        return self.env_runner_with(self.coder, workers + waiting)

    @cached_property
    def verbatim_env_runner(self) -> EnvRunner:
        """For agents that write whole scripts of the space of pipelines, such as searches."""
        return self.env_runner_with(VerbatimCoder(), self.settings.sandbox.workers)

    def executions(self, agent: str) -> Executions:
        """By which an agent chooses or learns before it is evaluated."""
        return Executions(
            self.sandbox,
            grade,
            self.settings.sandbox.workers,
            lambda title, total: ProgressBar(f"{agent}: {title}", total),
        )

    def env_runner_with(self, coder: Coder, threads: int) -> EnvRunner:
        """For agents that act through this coder instead of the run's. threads: actions carried out at once."""
        environments = {
            task.name: Environment(task, self.sandbox, self.store, coder, grade, self.settings.episode)
            for task in self.all_tasks
        }
        return self._resources.enter_context(
            EnvRunner(
                environments,
                self.settings.reward,
                threads=threads,
                thought=self.settings.prompt.thought,
            )
        )

    @cached_property
    def tokenizer(self) -> Tokenizer:
        pretrained = self.settings.model.pretrained
        tokenizer = load_tokenizer(Path(pretrained) if pretrained else self.workdir.tokenizer)
        check_trainable(tokenizer)
        return tokenizer

    @cached_property
    def model(self) -> Qwen2Config:
        settings = self.settings.model
        if settings.pretrained:
            config = load_config(settings.pretrained, **settings.execution)
            if settings.size and config.num_parameters != qwen2_5(settings.size).num_parameters:
                raise SettingsError(
                    f"config.model.size is {settings.size!r}, but {settings.pretrained} holds a model of "
                    f"{config.num_parameters:,} parameters; correct one of the two"
                )
            check_vocabulary(self.tokenizer, config.vocab_size, settings.pretrained)
            return config.replace(unused_ids=unused_ids(self.tokenizer, config.vocab_size))
        return Qwen2Config(vocab_size=self.tokenizer.vocab_size, **settings.shape)

    @cached_property
    def trained_model(self) -> Qwen2Config:
        """The model that is trained: with adapters if the configuration has any."""
        return self.settings.model.with_adapters(self.model)

    def initial_params(self) -> Params:
        """The parameters that fine-tuning starts from; those of a checkpoint are on the mesh already.

        A new copy for each call, which the stage owns.
        """
        settings = self.settings.model
        if settings.pretrained:
            return load_hf(settings.pretrained, self.mesh, **settings.execution)[1]
        return init_params(self.model, self.settings.seed)

    @cached_property
    def engine(self) -> Engine:
        """The generation engine, on the mesh of training; a stage loads the weights."""
        return Engine(self.trained_model, self.settings.sampling.engine(), self.mesh)

    def policy(self, name: str, temperature: float) -> ModelPolicy:
        """An agent that samples from the weights that `engine` has loaded."""
        return ModelPolicy(
            name,
            self.engine,
            self.tokenizer,
            self.settings.prompt,
            self.settings.sampling.max_new_tokens,
            SamplingParams(temperature),
        )

    def trained_params(self, stage: str, needed_by: str) -> Params:
        """The parameters that a stage has trained, with adapters, on the mesh. Raises MissingInputError."""
        workdir = self.workdir
        distributed.on_main(lambda: workdir.require(needed_by, workdir.checkpoints(stage), made_by=stage))
        return load_params(workdir.stage(stage), self.trained_model, self.mesh)

    def params_before_rl(self, needed_by: str) -> Params:
        """The parameters that RL starts from, on the mesh."""
        if self.settings.rl.start == "sft":
            return self.trained_params("sft", needed_by)
        return put(self.initial_params(), param_shardings(self.model, self.mesh))

    def expert_trajectories(self, needed_by: str, tasks_of: str) -> list[Trajectory]:
        """The episodes that the stage collect stored, on the tasks of a stage. Raises MissingInputError."""
        path = self.workdir.expert_trajectories
        self.workdir.require(needed_by, path, made_by="collect")
        names = self.settings.tasks.names(tasks_of)
        return [each for each in read_expert_trajectories(path) if each.task in names]

    def chats(self, trajectories: Iterable[Trajectory]) -> list[list[Message]]:
        """See `trajectory_chats`."""
        return trajectory_chats(self.settings.prompt, self.held_in, trajectories)

    def paraphrases(self, trajectory: Trajectory) -> list[list[Message]]:
        """Its `sft.paraphrases` chats in other words; see `paraphrase_chats`."""
        config = self.settings.sft
        seeds = range(config.seed * config.paraphrases, (config.seed + 1) * config.paraphrases)
        return paraphrase_chats(self.settings.prompt, self.held_in, trajectory, seeds)

    def export(self, stage: str, params: Params) -> None:
        """Writes a stage's model and tokenizer as a Hugging Face checkpoint; all processes must call it.

        Adapters are merged here, in float32, and nowhere else.
        """
        save_hf(self.workdir.export(stage), self.trained_model, params, self.tokenizer)

    def execution_counts(self) -> dict[str, int]:
        """Executions since this start: those that the sandbox ran, and those that the cache answered."""
        return {"executions": self.sandbox.misses, "cached_executions": self.sandbox.hits}

    def _llm_policy(self, role: str, name: str, config: ExpertConfig, with_ideas: bool) -> Policy:
        return LLMPolicy(
            self.models.of(role),
            self.settings.prompt,
            name=name,
            with_ideas=with_ideas,
            writes_free_code=self.coder.writes_free_code,
            structured=config.structured_output,
        )

    def _load(self, names: Sequence[str], split: str) -> list[Task]:
        """The tasks, prepared; `split` is the configuration's, not that of the task's folder."""
        folder = Path(self.settings.tasks.folder)
        micro = self.settings.tasks.micro
        for name in names:
            prepare_task(name, folder, self.data_root, micro=micro)
        tasks = [replace(load_task(name, folder, self.data_root, micro), split=split) for name in names]
        if tasks:
            logging.info("Tasks ready: %s", ", ".join(f"{task.name} ({task.kind})" for task in tasks))
        return tasks

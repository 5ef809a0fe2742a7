"""Checks before any work begins: stages and their inputs, trackers, tasks, roles, the model and the devices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from absl import logging

from experiments.experiment import Experiment
from experiments.settings import FINE_TUNED, LLM, TRAINED, Settings, SettingsError
from experiments.stages import OPTIONAL, SANDBOXED, STAGES, TRACKED, controls
from experiments.workdir import Workdir
from mlagent_jax.models.sharding import check_model_fits
from mlagent_jax.parallel import distributed
from mlagent_jax.parallel.mesh import check_batch_fits
from mlagent_jax.ppo.loop import check as check_ppo
from mlagent_jax.tasks.task_file import read_task_file


def ordered_stages(names: Sequence[str], known: Sequence[str] = STAGES) -> list[str]:
    """The stages of --stages. Raises SettingsError if one is unknown or named twice, or they are out of order."""
    given, all_of_them = ",".join(names), ", ".join(known)
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise SettingsError(
            f"--stages={given}: {f'{unknown[0]!r} is not a stage' if unknown else 'it is empty'}; there are the "
            f"stages {all_of_them}"
        )
    if len(set(names)) < len(names):
        twice = next(name for index, name in enumerate(names) if name in names[:index])
        raise SettingsError(f"--stages={given} names {twice!r} twice; name it once")
    order = [stage for stage in known if stage in names]
    if list(names) != order:
        raise SettingsError(
            f"--stages={given}: stages run in the order {all_of_them}; write --stages={','.join(order)}"
        )
    return order


def asked_stages(settings: Settings, stages: Sequence[str], named: bool) -> list[str]:
    """The stages without those that train a control which the evaluation does not have.

    named: whether the user named the stages. Raises SettingsError if so and one of them is left out.
    """
    unasked = [stage for stage in stages if stage in OPTIONAL and stage not in settings.evaluate.agents]
    if named and unasked:
        raise SettingsError(
            f"--stages={','.join(stages)} names {unasked[0]!r}, which trains an agent that config.evaluate.agents does "
            "not have; add it there"
        )
    return [stage for stage in stages if stage not in unasked]


def check_inputs(settings: Settings, workdir: Workdir, stages: Sequence[str]) -> None:
    """Raises MissingInputError for a stage whose input neither exists nor is made by one of `stages`."""
    for stage in stages:
        if workdir.is_done(stage):
            continue
        for made_by, path in _inputs(settings, workdir, stage).items():
            if made_by not in stages:
                workdir.require(stage, path, made_by)


def check_setup(experiment: Experiment, stages: Sequence[str]) -> None:
    """Raises UserError if the trackers, tasks, controls, roles, model or devices do not suit the settings."""
    settings = experiment.settings
    if not set(TRACKED).isdisjoint(stages):
        distributed.on_main(experiment.tracking.check)
    folder = Path(settings.tasks.folder)
    tasks = settings.tasks
    names = (*tasks.held_in, *tasks.held_out, *tasks.validation)
    starters = {Path(name).name: read_task_file(name, folder).starter for name in names}
    if "evaluate" in stages:
        controls.check(settings, starters)
    to_run = [stage for stage in stages if not experiment.workdir.is_done(stage)]
    distributed.on_main(lambda: experiment.models.check(_roles(settings, to_run)))
    rl, sft = ({*TRAINED} - {*FINE_TUNED}) & {*stages}, {*FINE_TUNED} & {*stages}
    samples = rl or ("evaluate" in stages and {*TRAINED} & {*settings.evaluate.agents})
    if not samples and not sft:
        return
    mesh = experiment.mesh
    if settings.model.pretrained:
        model = experiment.model  # reads the folder's config.json and tokenizer, and checks that they match
        check_model_fits(model, mesh)
        if samples and settings.sampling.max_length > model.max_position_embeddings:
            raise SettingsError(
                f"config.sampling.max_length is {settings.sampling.max_length}, but {settings.model.pretrained} was "
                f"trained for {model.max_position_embeddings} tokens; lower it"
            )
        if settings.model.unused_shape:
            logging.info(
                "The architecture comes from config.model.pretrained; these settings are ignored: %s",
                ", ".join(f"config.model.shape.{name}" for name in settings.model.unused_shape),
            )
    if sft and settings.rl.start == "sft":
        check_batch_fits(settings.sft.micro_rows, settings.sft.row_length, mesh, "config.sft")
    if rl:
        check_ppo(settings.ppo, settings.sampling.engine(), mesh)


def _roles(settings: Settings, stages: Sequence[str]) -> list[str]:
    """The roles of `config.models` that the stages need."""
    agents = settings.evaluate.agents if "evaluate" in stages else ()
    needed = {
        "expert": "collect" in stages or "expert" in agents,
        "coder": not {*SANDBOXED}.isdisjoint(stages),
        "idea_writer": "ideas" in stages,
        "agent": LLM in agents,
    }
    return [role for role, is_needed in needed.items() if is_needed]


def _inputs(settings: Settings, workdir: Workdir, stage: str) -> dict[str, Path]:
    """The stages that `stage` reads from, and the file or folder that it needs of each."""
    expert, from_sft = {"collect": workdir.expert_trajectories}, settings.rl.start == "sft"
    if stage == "collect":
        return {"ideas": workdir.ideas}
    if stage in FINE_TUNED:
        return expert if from_sft else {}
    if stage in TRAINED:
        reads_expert = settings.rl.rollouts == "states" or settings.ppo.critic_start == "expert"
        # A model trained from scratch also needs the tokenizer, which collect trains on the expert's episodes.
        needs_expert = reads_expert or not settings.model.pretrained
        start = {"sft": workdir.checkpoints("sft")} if from_sft else {}
        return (expert if needs_expert else {}) | start
    if stage == "evaluate":
        return {name: workdir.checkpoints(name) for name in TRAINED if name in settings.evaluate.agents}
    return {}

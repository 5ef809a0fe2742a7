"""What can be found wrong before any work is done: stages and their inputs, tasks, the model, the devices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from absl import logging

from experiments.experiment import Experiment
from experiments.settings import Settings, SettingsError
from experiments.stages import STAGES
from experiments.workdir import Workdir
from mlagent_jax.parallel.mesh import check_batch_fits, check_model_fits
from mlagent_jax.ppo.loop import check as check_ppo
from mlagent_jax.tasks.task_file import read_task_file


def ordered_stages(names: Sequence[str], known: Sequence[str] = STAGES) -> list[str]:
    """The value of --stages. Raises SettingsError for an unknown one, one named twice, and another order."""
    given, all_of_them = ",".join(names), ", ".join(known)
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise SettingsError(
            f"--stages={given}: {f'{unknown[0]!r} is no stage' if unknown else 'it is empty'}; there are the "
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


def check_inputs(settings: Settings, workdir: Workdir, stages: Sequence[str]) -> None:
    """Raises MissingInputError for a stage that needs another, which neither runs now nor has finished."""
    for stage in stages:
        if workdir.is_done(stage):
            continue
        for made_by, what in _inputs(settings, stage).items():
            if made_by not in stages:
                workdir.require(stage, workdir.root / what, made_by)


def check_setup(experiment: Experiment, stages: Sequence[str]) -> None:
    """Raises UserError where the tasks, the model or the devices cannot be what these stages need of them."""
    settings = experiment.settings
    folder = Path(settings.tasks.folder)
    for name in (*settings.tasks.held_in, *settings.tasks.held_out):
        read_task_file(name, folder)
    samples = "ppo" in stages or ("evaluate" in stages and {"sft", "ppo"} & set(settings.evaluate.agents))
    if not samples and "sft" not in stages:
        return
    mesh = experiment.mesh
    if settings.model.pretrained:
        model = (
            experiment.model
        )  # reads the folder's description and tokenizer, and holds one against the other
        check_model_fits(model, mesh)
        if samples and settings.sampling.max_length > model.max_position_embeddings:
            raise SettingsError(
                f"config.sampling.max_length is {settings.sampling.max_length}, but {settings.model.pretrained} was "
                f"trained for {model.max_position_embeddings} tokens; lower it"
            )
        if settings.model.unused_shape:
            logging.info(
                "config.model.pretrained says what the model is; not used: %s",
                ", ".join(f"config.model.shape.{name}" for name in settings.model.unused_shape),
            )
    if "sft" in stages and settings.rl.start == "sft":
        check_batch_fits(settings.sft.micro_rows, settings.sft.row_length, mesh, "config.sft")
    if "ppo" in stages:
        check_ppo(settings.ppo, settings.sampling.engine(), mesh)


def _inputs(settings: Settings, stage: str) -> dict[str, str]:
    """The stages that `stage` reads from, and what of theirs."""
    trajectories, checkpoints = "collect/trajectories.jsonl", "checkpoints"
    if stage == "collect":
        return {"ideas": "ideas"}
    if stage == "sft":
        return {"collect": trajectories} if settings.rl.start == "sft" else {}
    if stage == "ppo":
        from_sft = {"sft": f"sft/{checkpoints}"} if settings.rl.start == "sft" else {}
        of_expert = settings.rl.rollouts == "states" or settings.ppo.critic_start == "expert"
        needs_expert = (
            of_expert or not settings.model.pretrained
        )  # whose tokenizer is made of what the expert said
        return ({"collect": trajectories} if needs_expert else {}) | from_sft
    if stage == "evaluate":
        return {name: f"{name}/{checkpoints}" for name in ("sft", "ppo") if name in settings.evaluate.agents}
    return {}

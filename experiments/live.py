"""Shows an agent at work: it directs a real language model that writes code, on two tasks, step by step as it happens.

    python -m experiments.live                    # needs pip install -e '.[local]'
    python -m experiments.live --run=runs/quickstart --held_in=digits8 --held_out=tate --workdir=runs/another

The agent is the policy that the run in `--run` has trained (SFT + PPO), or the scripted expert if there is none. The
coder is a local model (`experiments.local_llm` lists them), which is fetched at the first start: 1.1 GB. Its scripts
run in the sandbox. The report is written at the end, and at Ctrl-C too. Then the same command goes on: what the coder
has written and what has run is not done again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing

from absl import flags, logging
from ml_collections import ConfigDict
from rich.console import Console

from experiments.cli.live_view import LiveView
from experiments.cli.program import INTERRUPTED, run_program
from experiments.configs import quickstart
from experiments.experiment import Experiment
from experiments.settings import MAX_SEED, Settings
from experiments.stages.episodes import episode_requests
from experiments.workdir import Workdir
from mlagent_jax.agent.episode import run_episodes
from mlagent_jax.agent.policy import Policy
from mlagent_jax.agent.trajectory import episode_key
from mlagent_jax.agent.trajectory_log import TrajectoryLog, latest_trajectories
from mlagent_jax.evaluation.report import write_report
from mlagent_jax.evaluation.scores import score_trajectories, write_scores
from mlagent_jax.evaluation.text_tables import headline_table
from mlagent_jax.host_memory import keep_freed_memory
from mlagent_jax.llm.config import DEFAULT_LOCAL

RUN = flags.DEFINE_string("run", "runs/quickstart", "Work directory of a finished run, whose policy acts.")
WORKDIR = flags.DEFINE_string("workdir", "runs/live", "Folder of what is shown; the same one resumes.")
HELD_IN = flags.DEFINE_list("held_in", ["election_tweets"], "Tasks that the policy was trained on.")
HELD_OUT = flags.DEFINE_list("held_out", ["emoji32"], "Tasks that it was not.")
CODER = flags.DEFINE_string("coder", DEFAULT_LOCAL, "The local model that writes the code.")
STEPS = flags.DEFINE_integer("steps", 6, "Actions in an episode.", 1)
THREADS = flags.DEFINE_integer("threads", 0, "Of the coder; 0 for one on each core.", 0, 1024)
TEMPERATURE = flags.DEFINE_float(
    "temperature", 0.3, "Of the policy; low, since one episode is shown.", lower_bound=0
)
SEED = flags.DEFINE_integer("seed", 0, "Of the agent's choices.", 0, MAX_SEED)

STAGE, AGENT = "evaluate", "ppo"


def main(argv: Sequence[str]) -> int:
    del argv
    logging.set_verbosity(logging.INFO)
    try:
        _run()
    except KeyboardInterrupt:
        print("\nInterrupted; what was done is kept. The same command goes on.")
        return INTERRUPTED
    return 0


def _run() -> None:
    run = Workdir.at(RUN.value)
    trained = run.is_done(AGENT) and run.export(AGENT).is_dir()
    settings, workdir = live_settings(run if trained else None), Workdir.at(WORKDIR.value)
    with workdir.claimed(settings), Experiment(settings, workdir) as experiment:
        experiment.models.check(["coder"])
        workdir.record_environment(settings.seed)
        experiment.require_sandbox()
        console = Console()
        if not trained:
            console.print(
                f"{run.root} has no trained policy, so the scripted expert acts; make quickstart trains one.",
                markup=False,
            )
        try:
            show(experiment, _policy(experiment, trained), console)
        finally:
            _report(experiment)


def live_settings(run: Workdir | None) -> Settings:
    """The settings of a run with other tasks and a real coder, and its trained policy as the model.

    run: of the trained policy; None for the quickstart's settings and no policy.
    """
    config = ConfigDict(json.loads(run.config.read_text())) if run else quickstart.get_config()
    config.seed, config.seeds = SEED.value, ()
    where = {name: config.tasks[name] for name in ("folder", "data_dir", "micro") if name in config.tasks}
    tasks = {"held_in": tuple(HELD_IN.value), "held_out": tuple(HELD_OUT.value)}
    config.tasks = ConfigDict(where | tasks)
    config.evaluate.temperatures, config.evaluate.variants, config.evaluate.every = (), (), 0
    config.episode.steps = config.prompt.max_steps = STEPS.value
    config.evaluate.temperature = TEMPERATURE.value
    config.evaluate.agents = (AGENT if run else "expert",)
    config.models.coder = ConfigDict({"backend": "local", "model": CODER.value, "threads": THREADS.value})
    config.models.coder.update({"context_tokens": 8192, "max_tokens": 2048, "parallel": 1})
    if run:
        config.model.pretrained = str(run.export(AGENT))
    return Settings.from_config(config)


def show(experiment: Experiment, policy: Policy, console: Console) -> None:
    """Runs an episode of each task that is not stored yet, and shows it."""
    settings, workdir = experiment.settings, experiment.workdir
    requests = episode_requests(settings.seed, experiment.tasks_of(STAGE), 1)
    view = LiveView(console, experiment.tasks_of(STAGE), settings.prompt.thought)
    env_runner = experiment.env_runner_with(view.coder(experiment.coder), threads=1)
    with TrajectoryLog(workdir.evaluation_trajectories) as log:
        stored = log.keys()
        missing = [r for r in requests if episode_key(policy.name, r.task, r.index) not in stored]
        if not missing:
            console.print(
                f"All episodes are in {workdir.root}; another --workdir and --seed show others.", markup=False
            )
        try:
            shown = run_episodes(view.policy(policy), missing, env_runner, 1, view.stepped)
            with closing(shown) as episodes:
                for trajectory in episodes:
                    log.append(trajectory)
                    view.ended(trajectory)
        finally:
            view.done()
    workdir.mark_done(STAGE, {"episodes": len(requests)} | experiment.execution_counts())


def _policy(experiment: Experiment, trained: bool) -> Policy:
    if not trained:
        return experiment.expert
    experiment.engine.load(experiment.initial_params())
    return experiment.policy(AGENT, experiment.settings.evaluate.temperature)


def _report(experiment: Experiment) -> None:
    """Scores and shows what is stored."""
    workdir = experiment.workdir
    found = list(latest_trajectories(workdir.evaluation_trajectories, missing_ok=True).values())
    if found:
        scores = score_trajectories(found, experiment.tasks_of(STAGE), seed=experiment.settings.seed)
        write_scores(workdir.scores, scores)
        print(headline_table(scores))
    print(f"The report is {write_report(workdir.root, workdir.report)}")


if __name__ == "__main__":
    keep_freed_memory()
    run_program(main)

"""Runs an experiment: ideas -> collect -> sft -> ppo -> evaluate -> report.

    python -m experiments.run --config=experiments/configs/quickstart.py --workdir=DIR
    python -m experiments.run --config=... --workdir=DIR --stages=sft,ppo --config.ppo.updates=20

The same command resumes a run that was interrupted at any moment. Under SLURM or on TPU VMs it is started
once per host; elsewhere name the processes by --coordinator_address, --num_processes and --process_id.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from logging import INFO, LogRecord

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from experiments.experiment import Experiment
from experiments.seeds import compare_seeds, with_seed
from experiments.settings import Settings, SettingsError
from experiments.stages import ACTING, RUN_STAGE, STAGES
from experiments.workdir import Workdir
from mlagent_jax.errors import UserError
from mlagent_jax.host_memory import keep_freed_memory
from mlagent_jax.parallel import distributed

INTERRUPTED = 130  # the shell's exit status for Ctrl-C

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Configuration file; any field can be set as --config.FIELD=VALUE.", lock_config=True
)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Where the run is kept; an interrupted run is resumed from there."
)
STAGES_FLAG = flags.DEFINE_list("stages", list(STAGES), "Which stages to run; they run in their fixed order.")
PRINT_CONFIG = flags.DEFINE_bool("print_config", False, "Print the configuration and stop.")
COORDINATOR = flags.DEFINE_string("coordinator_address", "", "host:port of process 0, for several processes.")
NUM_PROCESSES = flags.DEFINE_integer("num_processes", 0, "How many processes take part.")
PROCESS_ID = flags.DEFINE_integer("process_id", -1, "Which of them this is, from 0.")


def main(argv: Sequence[str]) -> int:
    del argv
    try:
        return _run()
    except UserError as error:
        return _fail(str(error))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return _fail(
            f"the disk is full ({error.filename or WORKDIR.value}): free some space; the same command resumes"
        )
    except KeyboardInterrupt:
        print("\nInterrupted; what is finished is kept. The same command resumes.", file=sys.stderr)
        return INTERRUPTED


def _run() -> int:
    settings = Settings.from_config(_config())
    if PRINT_CONFIG.value:
        print(CONFIG.value)
        return 0
    stages = _stages(STAGES_FLAG.value)
    if not WORKDIR.value:
        raise SettingsError(
            "--workdir is missing: name a folder to keep the run in, e.g. --workdir=runs/quickstart"
        )
    distributed.initialize(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value)
    workdir = Workdir.at(WORKDIR.value)
    if not settings.seeds:
        _run_one(CONFIG.value, workdir, stages)
        return 0
    with _claim(workdir, CONFIG.value):
        for seed in settings.seeds:
            _run_one(with_seed(CONFIG.value, seed), workdir.of_seed(seed), stages)
        if "evaluate" in stages and distributed.is_main():
            print(compare_seeds(workdir, settings.seeds))
    return 0


def _run_one(config: ConfigDict, workdir: Workdir, stages: Sequence[str]) -> None:
    settings = Settings.from_config(config)
    with _claim(workdir, config), Experiment(settings, workdir) as experiment:
        if distributed.is_main():
            workdir.record_environment(settings.seed)
            logging.info("Configuration (stored in %s):\n%s", workdir.root / "config.json", config)
        if any(stage in ACTING and not workdir.is_done(stage) for stage in stages):
            distributed.on_main(experiment.require_sandbox)  # before any other work is done and paid for
        for stage in stages:
            RUN_STAGE[stage](experiment)


def _claim(workdir: Workdir, config: ConfigDict) -> AbstractContextManager[None]:
    """Only the first process writes to the work directory."""
    return workdir.claimed(config.to_dict()) if distributed.is_main() else nullcontext()


def _config() -> ConfigDict:
    if isinstance(CONFIG.value, ConfigDict):
        return CONFIG.value
    given = config_flags.get_config_filename(flags.FLAGS["config"]) if CONFIG.value is not None else ""
    problem = f"can't be read: there is no file {given}" if given else "is missing: name a configuration file"
    raise SettingsError(f"--config {problem}, e.g. --config=experiments/configs/quickstart.py")


def _stages(names: Sequence[str]) -> list[str]:
    unknown = [name for name in names if name not in STAGES]
    if unknown or not names:
        raise SettingsError(f"--stages={','.join(names)}: there are the stages {', '.join(STAGES)}")
    return [stage for stage in STAGES if stage in names]


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 1


def _parse_flags(argv: Sequence[str]) -> list[str]:
    """absl's parser, with a sentence in place of a traceback for a field that the configuration lacks."""
    try:
        return app.parse_flags_with_usage(list(argv))
    except (AttributeError, KeyError, TypeError) as error:
        print(f"error: the configuration has no such field: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


def _is_worth_reading(record: LogRecord) -> bool:
    """orbax tells each file it writes by the logger that we share with it."""
    return record.levelno > INFO or "orbax" not in record.pathname


def console_main() -> None:
    keep_freed_memory()
    logging.set_verbosity(logging.INFO)
    logging.get_absl_handler().addFilter(_is_worth_reading)
    app.run(main, flags_parser=_parse_flags)


if __name__ == "__main__":
    console_main()

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
from pathlib import Path

from absl import flags, logging

from experiments import config_file
from experiments.command_line import INTERRUPTED, run_program
from experiments.experiment import Experiment
from experiments.preflight import check_inputs, check_setup, ordered_stages
from experiments.seeds import compare_seeds, with_seed
from experiments.settings import Settings, SettingsError
from experiments.stages import ACTING, RUN_STAGE, STAGES
from experiments.workdir import Workdir, WorkdirError
from mlagent_jax.host_memory import keep_freed_memory
from mlagent_jax.parallel import distributed

config_file.define_flags()
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Where the run is kept; an interrupted run is resumed from there."
)
STAGES_FLAG = flags.DEFINE_list("stages", list(STAGES), "Which stages to run, in this order.")
PRINT_CONFIG = flags.DEFINE_bool("print_config", False, "Print the whole configuration and stop.")
COORDINATOR = flags.DEFINE_string("coordinator_address", "", "host:port of process 0, for several processes.")
NUM_PROCESSES = flags.DEFINE_integer("num_processes", 0, "How many processes take part.", lower_bound=0)
PROCESS_ID = flags.DEFINE_integer("process_id", -1, "Which of them this is, from 0.", lower_bound=-1)

_UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ENOTDIR)


def main(argv: Sequence[str]) -> int:
    del argv
    try:
        return _run()
    except OSError as error:
        raise _told(error) from error
    except KeyboardInterrupt:
        print("\nInterrupted; what is finished is kept. The same command resumes.", file=sys.stderr)
        return INTERRUPTED


def _run() -> int:
    settings = Settings.from_config(config_file.given_config())
    stages = ordered_stages(STAGES_FLAG.value)
    if PRINT_CONFIG.value:
        print(settings.to_config())
        return 0
    if not WORKDIR.value:
        raise SettingsError(
            "--workdir is missing: name a folder to keep the run in, e.g. --workdir=runs/quickstart"
        )
    distributed.initialize(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value)
    workdir = Workdir.at(WORKDIR.value)
    runs = [(with_seed(settings, seed), workdir.of_seed(seed)) for seed in settings.seeds]
    for one, its_workdir in runs or [(settings, workdir)]:
        workdir.check_usable()
        its_workdir.check_usable()
        check_inputs(one, its_workdir, stages)
        with Experiment(one, its_workdir) as experiment:
            check_setup(experiment, stages)
    if not runs:
        _run_one(settings, workdir, stages)
        return 0
    with _claim(workdir, settings):
        for one, its_workdir in runs:
            _run_one(one, its_workdir, stages)
        if "evaluate" in stages and distributed.is_main():
            print(compare_seeds(workdir, settings.seeds))
    return 0


def _run_one(settings: Settings, workdir: Workdir, stages: Sequence[str]) -> None:
    with _claim(workdir, settings), Experiment(settings, workdir) as experiment:
        if distributed.is_main():
            workdir.record_environment(settings.seed)
            logging.info(
                "Configuration (stored in %s):\n%s", workdir.root / "config.json", settings.to_config()
            )
        if any(stage in ACTING and not workdir.is_done(stage) for stage in stages):
            distributed.on_main(experiment.require_sandbox)  # before any other work is done and paid for
        for stage in stages:
            RUN_STAGE[stage](experiment)


def _claim(workdir: Workdir, settings: Settings) -> AbstractContextManager[None]:
    """Only the first process writes to the work directory."""
    return workdir.claimed(settings) if distributed.is_main() else nullcontext()


def _told(error: OSError) -> Exception:
    """A full disk, or a part of the work directory that can't be used, as what the user can do about it."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return WorkdirError(
            f"the disk is full ({error.filename or WORKDIR.value}): free some space; the same command resumes"
        )
    root = Path(WORKDIR.value or ".").expanduser().resolve()
    if error.errno in _UNWRITABLE and error.filename and Path(str(error.filename)).is_relative_to(root):
        return WorkdirError(
            f"{error.filename} in the work directory can't be used ({error.strerror}): make it readable and "
            "writable; the same command resumes"
        )
    return error


def _is_worth_reading(record: LogRecord) -> bool:
    """orbax tells each file it writes by the logger that we share with it."""
    return record.levelno > INFO or "orbax" not in record.pathname


def console_main() -> None:
    keep_freed_memory()
    logging.set_verbosity(logging.INFO)
    logging.get_absl_handler().addFilter(_is_worth_reading)
    run_program(main)


if __name__ == "__main__":
    console_main()

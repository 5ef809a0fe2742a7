"""Runs an experiment: ideas -> collect -> sft -> ppo -> evaluate -> report, and trains the controls asked for.

    python -m experiments.run --config=experiments/configs/quickstart.py --workdir=DIR
    python -m experiments.run --config=... --workdir=DIR --stages=sft,ppo --config.ppo.updates=20
    python -m experiments.run --config=... --workdir=DIR --from=OTHER:sft --config.ppo.updates=20

The same command resumes a run that was interrupted at any point. Under SLURM and on TPU VMs it is started once
per host; elsewhere, name the processes by --coordinator_address, --num_processes and --process_id.
`--from` takes finished stages of another run, if the settings that matter to them are the same.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from logging import INFO, LogRecord
from pathlib import Path

from absl import flags, logging

from experiments.cli import config_flags
from experiments.cli.program import INTERRUPTED, run_program
from experiments.experiment import Experiment
from experiments.origin import Origin, complete
from experiments.settings import Settings, SettingsError
from experiments.stages import RUN_STAGE, SANDBOXED, STAGES
from experiments.stages.preflight import asked_stages, check_inputs, check_setup, ordered_stages
from experiments.workdir import Workdir, WorkdirError
from mlagent_jax.evaluation.comparison import compare_seeds
from mlagent_jax.evaluation.read_run import read_json
from mlagent_jax.evaluation.text_tables import headline_table
from mlagent_jax.host_memory import keep_freed_memory
from mlagent_jax.parallel import distributed

config_flags.define_flags()
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run; the same folder resumes an interrupted run."
)
STAGES_FLAG = flags.DEFINE_list("stages", list(STAGES), "Stages to run, in this order.")
FROM = flags.DEFINE_string(
    "from",
    None,
    "DIR[:STAGE] of another run: takes this stage, by default sft, and those that it was made from.",
)
PRINT_CONFIG = flags.DEFINE_bool("print_config", False, "Print the whole configuration and stop.")
COORDINATOR = flags.DEFINE_string("coordinator_address", "", "host:port of process 0, for several processes.")
NUM_PROCESSES = flags.DEFINE_integer("num_processes", 0, "Number of processes.", lower_bound=0)
PROCESS_ID = flags.DEFINE_integer("process_id", -1, "Index of this process, from 0.", lower_bound=-1)

_UNUSABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ENOTDIR)


def main(argv: Sequence[str]) -> int:
    del argv
    try:
        return _run()
    except OSError as error:
        raise _explained(error) from error
    except KeyboardInterrupt:
        print("\nInterrupted; finished work is kept. The same command resumes.", file=sys.stderr)
        return INTERRUPTED


def _run() -> int:
    settings = Settings.from_config(config_flags.given_config())
    stages = asked_stages(settings, ordered_stages(STAGES_FLAG.value), named=STAGES_FLAG.present > 0)
    if PRINT_CONFIG.value:
        print(settings.to_config())
        return 0
    if not WORKDIR.value:
        raise SettingsError(
            "--workdir is missing: name a folder to keep the run in, e.g. --workdir=runs/quickstart"
        )
    distributed.initialize(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value)
    workdir = Workdir.at(WORKDIR.value)
    runs = [(settings.with_seed(seed), workdir.of_seed(seed)) for seed in settings.seeds]
    origin = Origin.parse(FROM.value) if FROM.value else None
    for run_settings, run_workdir in runs or [(settings, workdir)]:
        workdir.check_usable()
        run_workdir.check_usable()
        taken = _check_origin(origin, run_settings, run_workdir)
        check_inputs(run_settings, run_workdir, [*taken, *(stage for stage in stages if stage not in taken)])
        with Experiment(run_settings, run_workdir) as experiment:
            check_setup(experiment, [stage for stage in stages if stage not in taken])
    if not runs:
        _run_one(settings, workdir, stages, origin)
        return 0
    with _claim(workdir, settings):
        _, first = runs[0]
        for run_settings, run_workdir in runs:
            first_seed = first if run_workdir is not first else None
            _run_one(run_settings, run_workdir, stages, origin, first_seed)
        if "evaluate" in stages and distributed.is_main():
            print(compare_seeds([run_workdir for _, run_workdir in runs], workdir.comparison))
    return 0


def _check_origin(origin: Origin | None, settings: Settings, workdir: Workdir) -> tuple[str, ...]:
    """The stages that are taken from it."""
    if origin is None:
        return ()
    of_seed = origin.of_seed(settings.seed)
    distributed.on_main(lambda: of_seed.check(settings, workdir))
    return of_seed.stages


def _run_one(
    settings: Settings,
    workdir: Workdir,
    stages: Sequence[str],
    origin: Origin | None,
    first_seed: Workdir | None = None,
) -> None:
    with _claim(workdir, settings), Experiment(settings, workdir, first_seed) as experiment:
        of_seed = origin.of_seed(settings.seed) if origin else None
        distributed.on_main(lambda: of_seed.take(workdir) if of_seed else complete(workdir))
        if distributed.is_main():
            workdir.record_environment(settings.seed)
            logging.info("Configuration (stored in %s):\n%s", workdir.config, settings.to_config())
        if any(stage in SANDBOXED and not workdir.is_done(stage) for stage in stages):
            distributed.on_main(experiment.require_sandbox)  # fails before any other work is done
        for stage in stages:
            RUN_STAGE[stage](experiment)
        if spent := experiment.models.spent_by_role():
            logging.info("Calls of language models have cost %s so far.", spent)
        scores = read_json(workdir.scores) if distributed.is_main() else None
        if scores and {"evaluate", "report"} & set(stages):
            print(headline_table(scores))


def _claim(workdir: Workdir, settings: Settings) -> AbstractContextManager[None]:
    """Only the first process writes to the work directory."""
    return workdir.claimed(settings) if distributed.is_main() else nullcontext()


def _explained(error: OSError) -> Exception:
    """What the user can do about a full disk, or a part of the work directory that cannot be used."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return WorkdirError(
            f"the disk is full ({error.filename or WORKDIR.value}): free some space; the same command resumes"
        )
    root = Path(WORKDIR.value or ".").expanduser().resolve()
    if error.errno in _UNUSABLE and error.filename and Path(str(error.filename)).is_relative_to(root):
        return WorkdirError(
            f"{error.filename} in the work directory can't be used ({error.strerror}): make it readable and "
            "writable; the same command resumes"
        )
    return error


def _is_shown(record: LogRecord) -> bool:
    """orbax logs every file that it writes, to the same logger as this program."""
    return record.levelno > INFO or "orbax" not in record.pathname


def console_main() -> None:
    keep_freed_memory()
    logging.set_verbosity(logging.INFO)
    logging.get_absl_handler().addFilter(_is_shown)
    run_program(main)


if __name__ == "__main__":
    console_main()

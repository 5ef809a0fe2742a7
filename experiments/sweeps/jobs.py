"""The runs of a sweep: a folder and a command for each variant and seed, in an order in which they can be run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.cli.config_flags import load_config_file, with_changes
from experiments.settings import Settings
from experiments.sweeps.suite import Group, Suite, SuiteError, Variant
from experiments.workdir import Workdir
from mlagent_jax.errors import UserError

LAST_STAGE = "report"


@dataclass(frozen=True)
class Job:
    """One run. needs: the job whose stage it takes, which has to be finished first."""

    variant: Variant
    seed: int
    workdir: Workdir
    command: tuple[str, ...]
    needs: Job | None = None

    @property
    def name(self) -> str:
        return f"{self.variant.name}/seed_{self.seed}"

    @property
    def log(self) -> Path:
        return self.workdir.root.with_suffix(".log")

    @property
    def is_done(self) -> bool:
        return self.workdir.is_done(LAST_STAGE)


def plan(suite: Suite, groups: Sequence[Group], seeds: Sequence[int], root: Path) -> list[Job]:
    """All runs, a seed after the other, so that each group is there to be read from the first seed on.

    Raises SuiteError for a variant whose settings are wrong, or whose folder holds a run with other settings.
    """
    jobs: dict[tuple[str, int], Job] = {}
    for seed in seeds:
        for variant in suite.in_order(groups):
            origin = variant.origin
            needs = jobs[origin[0], seed] if origin else None
            job = _job(variant, seed, root, needs)
            _check(job)
            jobs[variant.name, seed] = job
    return list(jobs.values())


def _job(variant: Variant, seed: int, root: Path, needs: Job | None) -> Job:
    workdir = Workdir.at(str(root / variant.name / f"seed_{seed}"))
    flags = [f"--config={variant.config}", f"--workdir={workdir.root}"]
    if needs is not None and variant.origin is not None:
        flags.append(f"--from={needs.workdir.root}:{variant.origin[1]}")
    flags += [f"--config.{name}={value}" for name, value in {**variant.changes, "seed": seed}.items()]
    # A script that one run has executed costs the others nothing.
    flags.append(f"--config.sandbox.cache_dir={root.resolve() / 'executions'}")
    command = (sys.executable, "-m", "experiments.run", *flags)
    return Job(variant, seed, workdir, command, needs)


def settings_of(variant: Variant, seed: int) -> Settings:
    """Raises UserError if they are wrong."""
    config = with_changes(load_config_file(variant.config), {**variant.changes, "seed": seed})
    return Settings.from_config(config)


def _check(job: Job) -> None:
    """A wrong setting would otherwise end the sweep after hours, and a changed one would go unnoticed."""
    try:
        settings = settings_of(job.variant, job.seed)
        if job.workdir.config.exists():
            job.workdir.check_same(settings)
    except UserError as error:
        raise SuiteError(f"variant {job.variant.name!r}: {error}") from error

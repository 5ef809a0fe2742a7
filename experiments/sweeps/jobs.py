"""The runs of a sweep: a folder and a command for each variant and seed, in an order in which they can be run."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.cli.config_flags import load_config_file, with_changes
from experiments.origin import Origin
from experiments.settings import Settings
from experiments.sweeps.suite import Group, Suite, SuiteError, Variant
from experiments.workdir import Workdir
from mlagent_jax.errors import UserError
from mlagent_jax.fields import flat
from mlagent_jax.files import read_json_object

ROOT = Path(__file__).parents[2]
EXECUTIONS = ".executions"  # no variant can be called that


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
        """The report is the last that a run writes."""
        return self.workdir.is_done("evaluate") and self.workdir.report.exists()

    @property
    def origin(self) -> Origin | None:
        """The stage that it takes."""
        taken = self.variant.origin
        return Origin(self.needs.workdir, taken[1]) if self.needs is not None and taken else None


def plan(suite: Suite, groups: Sequence[Group], seeds: Sequence[int], root: Path) -> list[Job]:
    """All runs, a seed after the other, so that each group is there to be read from the first seed on.

    Raises SuiteError for all that would end a run only after hours: wrong settings, a stage that cannot be taken, an
    agent that is not evaluated; and for a folder that holds a run with other settings, or with stages of another run.
    """
    jobs: dict[tuple[str, int], Job] = {}
    for seed in seeds:
        for variant in suite.in_order(groups):
            origin = variant.origin
            needs = jobs[origin[0], seed] if origin else None
            try:
                job = _job(variant, seed, root, needs)
                _check(job)
            except UserError as error:
                raise SuiteError(f"variant {variant.name!r}: {error}") from error
            jobs[variant.name, seed] = job
    _check_agents(suite, groups)
    return list(jobs.values())


def settings_of(variant: Variant, seed: int) -> Settings:
    """Raises UserError if they are wrong."""
    config = with_changes(load_config_file(_config(variant)), {**variant.changes, "seed": seed})
    return Settings.from_config(config)


def _config(variant: Variant) -> str:
    own = Path(variant.config).resolve()
    return str(own if own.exists() else ROOT / variant.config)


def _job(variant: Variant, seed: int, root: Path, needs: Job | None) -> Job:
    workdir = Workdir.at(str(root / variant.name / f"seed_{seed}"))
    flags = [f"--config={_config(variant)}", f"--workdir={workdir.root}"]
    if needs is not None:
        origin = Origin.parse(f"{needs.workdir.root}:{variant.takes.partition(':')[2]}")
        flags.append(f"--from={origin}")
    flags += [f"--config.{name}={value}" for name, value in {**variant.changes, "seed": seed}.items()]
    # A script that one run has executed costs the others nothing.
    flags.append(f"--config.sandbox.cache_dir={root.expanduser().resolve() / EXECUTIONS}")
    command = (sys.executable, "-m", "experiments.run", *flags)
    return Job(variant, seed, workdir, command, needs)


def _check(job: Job) -> None:
    settings = settings_of(job.variant, job.seed)
    if settings.seeds:
        raise SuiteError(
            f"config.seeds is {settings.seeds}, but each run of a sweep has one seed; leave it empty"
        )
    fields = flat(settings, "config")
    for name in job.variant.changes:
        if f"config.{name}" not in fields:
            raise SuiteError(f"{name} is a section; change its fields one by one")
    if job.workdir.config.exists():
        job.workdir.check_same(settings)
    if job.origin is not None and job.needs is not None:
        job.origin.check_settings(settings_of(job.needs.variant, job.seed), settings)
    if job.is_done:
        _check_origin(job)


def _check_origin(job: Job) -> None:
    """What is compared as sharing a stage has to share it, and with the run that is there today."""
    stored = read_json_object(job.workdir.origin, SuiteError) if job.workdir.origin.exists() else None
    if job.origin is None and stored is not None:
        raise SuiteError(
            f"{job.workdir.root} has its stages from {stored.get('folder')}, but takes none in the suite; remove it"
        )
    if job.origin is not None and (stored is None or not job.origin.is_that_of(stored)):
        raise SuiteError(
            f"{job.workdir.root} does not have its stages from {job.origin} as it is now; remove it, and run the sweep "
            "again"
        )


def _check_agents(suite: Suite, groups: Iterable[Group]) -> None:
    for group in groups:
        for row in group.rows:
            evaluated = settings_of(suite.variant(row.variant), suite.seeds[0]).evaluate.all_agents
            if row.agent not in evaluated:
                raise SuiteError(
                    f"group {group.name}, row {row.label!r}: variant {row.variant!r} evaluates {', '.join(evaluated)}, "
                    f"but not {row.agent!r}"
                )

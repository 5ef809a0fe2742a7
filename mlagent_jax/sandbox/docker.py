"""The Docker backend: runs jobs in containers of one or several engines; see `containers`."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlagent_jax.sandbox import seccomp
from mlagent_jax.sandbox.containers import checks, reaper
from mlagent_jax.sandbox.containers.engine import Engine
from mlagent_jax.sandbox.containers.policy import ContainerSpec
from mlagent_jax.sandbox.containers.pool import ContainerPool, Slot
from mlagent_jax.sandbox.containers.settings import DockerSettings
from mlagent_jax.sandbox.interface import Job, Limits, Result, SandboxUnavailableError
from mlagent_jax.sandbox.pool import PRELOAD, check_job, relative_data_dir, run_job

# What an idle container takes, with everything imported, and the share of the hosts' memory for all of them.
_IDLE_MB = 150
_IDLE_MEMORY_SHARE = 0.25


class DockerSandbox:
    """Runs each job in a container that shows it nothing of other jobs; see `Sandbox`.

    Args:
        data_root: the folder that contains every job's `data_dir`, at the same path on every engine's host.
        workers: how many jobs may run at once on all engines together.
        preload: modules that every worker imports once, before its first job.
        attempts: how often a job is tried when its container, not its script, fails.

    Raises:
        FileNotFoundError: `data_root` does not exist.
        SandboxUnavailableError: an engine does not answer, lacks the image, or cannot isolate.
    """

    name = "docker"
    isolated = True

    def __init__(
        self,
        data_root: Path,
        workers: int = 2,
        preload: Sequence[str] = PRELOAD,
        attempts: int = 3,
        settings: DockerSettings | None = None,
    ) -> None:
        settings = settings or DockerSettings()
        self._settings = settings
        self._data_root = data_root.resolve(strict=True)
        self._attempts = attempts
        self._seccomp = seccomp.build_filter()
        self._readable: set[str] = set()
        self._sizes: set[tuple[int, int]] = set()
        self._engines = [
            Engine(address, settings.call_seconds, settings.calls) for address in settings.engines
        ]
        try:
            self._facts = [checks.check_engine(engine, settings) for engine in self._engines]
            slots = _slots(self._engines, workers, settings)
            for engine in self._engines:
                reaper.reap(engine)
        except BaseException:
            self._close_engines()
            raise
        self._pool = ContainerPool(slots, settings, tuple(preload), _max_idle(self._facts, workers, settings))

    @property
    def pool(self) -> ContainerPool:
        return self._pool

    def identity(self) -> Mapping[str, str]:
        """See `Sandbox.identity`. Images by their current ids: a name may later refer to another image."""
        images = {checks.check_image(engine, self._settings) for engine in self._engines}
        return {
            "machine": ",".join(sorted({str(facts.get("Architecture", "")) for facts in self._facts})),
            "image": ",".join(sorted(images)),
            "runtime": ",".join(
                sorted(
                    {self._settings.runtime or str(facts.get("DefaultRuntime", "")) for facts in self._facts}
                )
            ),
            "gpu": str(bool(self._settings.gpus)),
        }

    def run(self, job: Job) -> Result:
        """See `Sandbox.run`.

        Raises:
            ValueError: an invalid job; see `check_job`.
            SandboxUnavailableError: its limits exceed an engine's host, or its data is readable by its owner only.
        """
        check_job(job)
        data = relative_data_dir(self._data_root, job.data_dir)
        folder = str(self._data_root / data) if data else ""
        if folder and folder not in self._readable:
            _check_readable(Path(folder))
            self._readable.add(folder)
        self.check(job.limits)
        borrow = functools.partial(self._pool.borrow, job, folder)
        # CUDA reserves far more address space than memory.
        has_gpu = bool(self._settings.gpus)
        return run_job(job, data, self._seccomp, self._attempts, borrow, limit_address_space=not has_gpu)

    def release(self, lease: str) -> None:
        """See `Sandbox.release`."""
        self._pool.release(lease)

    def __enter__(self) -> DockerSandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._pool.close()
        self._close_engines()

    def check(self, limits: Limits) -> None:
        """See `Sandbox.check`: one container must fit on every engine's host."""
        spec = ContainerSpec.from_limits(limits, "", "")
        size = (spec.container_mb, spec.threads)
        if size not in self._sizes:
            for engine, facts in zip(self._engines, self._facts, strict=True):
                checks.check_size(engine, facts, *size)
            self._sizes.add(size)

    def _close_engines(self) -> None:
        for engine in self._engines:
            engine.close()


def _slots(engines: Sequence[Engine], workers: int, settings: DockerSettings) -> list[Slot]:
    """The slots for jobs, spread over the engines. Raises SandboxUnavailableError for too few GPUs."""
    if workers < 1:
        raise ValueError(f"a sandbox needs at least one worker, not {workers}")
    if not settings.gpus:
        return [Slot(engines[number % len(engines)], "") for number in range(workers)]
    slots = [Slot(engine, gpu) for gpu in settings.gpus for engine in engines]
    if workers > len(slots):
        raise SandboxUnavailableError(
            f"{workers} workers need a GPU each, and there are {len(slots)}: lower sandbox.workers, or name more "
            "in sandbox.docker.gpus."
        )
    return slots[:workers]


def _max_idle(facts: Sequence[Mapping[str, Any]], workers: int, settings: DockerSettings) -> int:
    """How many containers may be idle on all engines together."""
    if settings.kept:
        return settings.kept
    host_mb = sum(fact["MemTotal"] >> 20 for fact in facts)
    return max(2 * workers, int(_IDLE_MEMORY_SHARE * host_mb / _IDLE_MB))


def _check_readable(folder: Path) -> None:
    """Raises SandboxUnavailableError for data that a container's user cannot read."""
    for path in (folder, *folder.rglob("*")):
        mode = path.stat().st_mode
        needed = 0o005 if path.is_dir() else 0o004
        if mode & needed != needed:
            raise SandboxUnavailableError(
                f"{path} is readable by its owner only, but scripts run as another user: chmod -R o+rX {path}"
            )

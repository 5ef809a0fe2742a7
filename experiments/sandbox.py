"""Tests this host's sandboxes, and removes what dead runs have left behind.

    python -m experiments.sandbox doctor [bubblewrap] [docker]
    python -m experiments.sandbox gc [--engine=ADDRESS]
    python -m experiments.sandbox gc DIR [DIR ...] [--quota_mb=MB]

`doctor` attempts what must be impossible and prints which guarantees hold, one per line; its exit status is 1 if one
does not. Without names it tests bubblewrap, and Docker if an engine answers. `gc` removes containers whose owner is
dead or whose deadline has passed, never those of a run in progress. With directories it instead frees the least
recently used executions beyond --quota_mb, and what nothing refers to any more: of a work directory the snapshots that
no record of the run names, of a store that runs share (config.sandbox.cache_dir) the files of executions. A work
directory in use is refused; a store may be in use.
"""

from __future__ import annotations

from collections.abc import Sequence

from absl import flags

from experiments.cli.program import refuse_unread, run_program
from experiments.workdir import Workdir, collect_garbage
from mlagent_jax.errors import UserError
from mlagent_jax.sandbox import cache
from mlagent_jax.sandbox.containers import checks, reaper
from mlagent_jax.sandbox.containers.engine import Engine, EngineError
from mlagent_jax.sandbox.containers.settings import DockerSettings
from mlagent_jax.sandbox.doctor import Verdict, examine

_BACKENDS = ("bubblewrap", "docker")
ENGINES = flags.DEFINE_multi_string(
    "engine", [""], "Address of a Docker engine; by default that in DOCKER_HOST."
)
IMAGE = flags.DEFINE_string("image", DockerSettings.image, "Image of Docker's containers.")
QUOTA_MB = flags.DEFINE_float(
    "quota_mb", cache.QUOTA_MB, "How much of the executions gc keeps, at most.", lower_bound=0
)
RUNTIME = flags.DEFINE_string("runtime", "", "Runtime of the engine, such as runsc.")
_FLAGS = ("engine", "image", "runtime", "quota_mb")


def main(argv: Sequence[str]) -> int:
    command, names = (argv[1], tuple(argv[2:])) if len(argv) > 1 else ("", ())
    settings = DockerSettings(tuple(ENGINES.value), IMAGE.value, RUNTIME.value)
    match command:
        case "doctor":
            refuse_unread(command, ("engine", "image", "runtime"), _FLAGS)
            return _doctor(names, settings)
        case "gc" if names:
            refuse_unread("gc DIR", ("quota_mb",), _FLAGS)
            return _collect_folders(names)
        case "gc":
            refuse_unread("gc without a DIR", ("engine",), _FLAGS)
            return _collect(settings)
        case _:
            raise UserError(f"{command!r} is not a command; there are doctor and gc")


def _doctor(names: tuple[str, ...], settings: DockerSettings) -> int:
    for name in names:
        if name not in _BACKENDS:
            raise UserError(f"doctor cannot test {name!r}; it can test {', '.join(_BACKENDS)}")
    if not names:
        names = _BACKENDS if any(map(_answers, settings.engines)) else ("bubblewrap",)
    failed = False
    for finding in examine(names, settings):
        print(f"{finding.verdict:<8}{finding.subject:<48}{finding.detail}", flush=True)
        failed |= finding.verdict is Verdict.FAIL
    return int(failed)


def _answers(address: str) -> bool:
    engine = Engine(address, 5.0, 1)
    try:
        engine.call("answer", lambda client: client.ping())
    except EngineError:
        return False
    finally:
        engine.close()
    return True


def _collect_folders(names: tuple[str, ...]) -> int:
    for name in names:
        workdir = Workdir.at(name)
        is_store = cache.store_in(workdir.root).exists() and not workdir.config.exists()
        if is_store:
            freed = cache.collect_garbage_of_store(workdir.root, QUOTA_MB.value)
        else:
            freed = collect_garbage(workdir, QUOTA_MB.value)
        print(
            f"{workdir.root}: freed {freed.bytes / 2**20:.1f} MB in {freed.files} files; "
            f"{freed.executions} executions were beyond the quota of {QUOTA_MB.value:g} MB"
        )
    return 0


def _collect(settings: DockerSettings) -> int:
    for address in settings.engines:
        engine = Engine(address, settings.call_seconds, settings.calls)
        try:
            removed = reaper.reap(engine)
            left = reaper.list_containers(engine)
        except EngineError as error:
            raise UserError(checks.no_engine(engine, str(error))) from error
        finally:
            engine.close()
        print(f"{engine.label}: removed {len(removed)}")
        for name in removed:
            print(f"  {name}")
        for container in left:
            print(f"  kept {container.name}, {container.state}, of {container.owner}")
    return 0


if __name__ == "__main__":
    run_program(main, positional=True)

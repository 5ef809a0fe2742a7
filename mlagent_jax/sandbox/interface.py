"""What every sandbox backend offers: run one script in one fresh place, hand back a typed result.

A job is a pure description (files, script, limits), so that a result can be cached by content and repeated
anywhere. Nothing in a result is a judgement: grading happens outside, in `mlagent_jax.grading.grade`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from mlagent_jax.errors import UserError
from mlagent_jax.fields import setting


class Status(enum.StrEnum):
    """How an execution ended. All but `SANDBOX_ERROR` are statements about the program that ran."""

    OK = "ok"
    FAILED = "failed"  # non-zero exit or a signal of its own making
    TIMEOUT = "timeout"
    OOM = "oom"
    PIDS = "pids"
    DISK = "disk"
    OUTPUT_LIMIT = "output_limit"  # files to be taken out were too many or too large
    SANDBOX_ERROR = "sandbox_error"  # ours: retried, then masked, never scored

    @property
    def is_corner_case(self) -> bool:
        """Resource exhaustion: the paper's corner cases, rewarded neutrally (arXiv 2505.23723, 4.3)."""
        return self in {Status.TIMEOUT, Status.OOM, Status.PIDS, Status.DISK, Status.OUTPUT_LIMIT}


@dataclass(frozen=True)
class Limits:
    """Limits of one execution. They are required, with defaults, never absent."""

    wall_seconds: float = setting(30.0, above=0)
    cpu_seconds: int = setting(30, at_least=1)
    # Address space of each process, and memory of all together; in bytes it must fit the kernel's 64 bits.
    memory_mb: int = setting(1024, at_least=1)
    processes: int = setting(32, at_least=1)
    open_files: int = setting(256, at_least=1)
    workspace_mb: int = setting(64, at_least=1)  # the writable workspace, in memory
    workspace_files: int = setting(1024, at_least=1)
    kept_mb: int = setting(
        16, at_least=1
    )  # of files that go on to the next script; at most a quarter of the workspace
    kept_files: int = setting(200, at_least=1)  # and folders; at most half of the workspace's
    output_kb: int = setting(
        64, at_least=1
    )  # stdout + stderr kept: head and tail; the rest is counted and dropped
    threads: int = setting(1, at_least=1)  # OMP_NUM_THREADS and its like


@dataclass(frozen=True)
class Job:
    """One script to run.

    files: workspace contents before the run, relative POSIX path -> bytes; see `sandbox_worker.names`.
    script: path of the Python script to run, one of `files`; the working directory is the workspace root.
    output: path of the file that the script is to leave, which is taken out whatever its size; "" for none.
    data_dir: host folder shown read-only as `data/` in the workspace, or None.
    data_digest: content hash of `data_dir`, part of the cache key.
    lease: names the episode. Where containers cannot be shared by episodes, jobs of the same lease are run in the
        same one, one after the other; "" shares with none. It changes nothing but the time that a job takes, and is
        no part of the cache key.
    """

    files: Mapping[str, bytes]
    script: str
    data_dir: Path | None = None
    data_digest: str = ""
    limits: Limits = field(default_factory=Limits)
    lease: str = ""
    output: str = ""


@dataclass(frozen=True)
class Result:
    """What came of one job.

    output: stdout and stderr as they were interleaved, decoded with backslashreplace, control characters
        stripped, at most `limits.output_kb`; `dropped_bytes` says how much was left out of its middle.
    files: regular files of the workspace after everything in the sandbox was dead (without `data/`), within
        `limits.kept_mb` and `kept_files`; empty unless the program itself ran. They can be those of a next job.
    left_out: how many others there were, by reason; see `sandbox_worker.record.LeftOut`.
    oom_kills: how many of the job's processes the kernel killed for want of memory, which need not be the script
        itself; counted where a control group of the job's own counts them, in a container.
    error: one sentence for `SANDBOX_ERROR`, else "".
    """

    status: Status
    exit_code: int | None = None
    signal: int | None = None
    output: str = ""
    dropped_bytes: int = 0
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_mb: float = 0.0
    oom_kills: int = 0
    files: Mapping[str, bytes] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    cached: bool = False
    error: str = ""


class SandboxUnavailableError(UserError):
    """This host cannot give the isolation that was asked for; the message names the remedy."""


class Sandbox(Protocol):
    """A backend. Thread-safe: as many threads as it has workers may have `run` serve them at once."""

    @property
    def name(self) -> str: ...

    @property
    def isolated(self) -> bool:
        """Whether code written by a model may be run here."""
        ...

    def identity(self) -> Mapping[str, str]:
        """What else than a job decides its result: interpreter, libraries, image, runtime. May ask an engine."""
        ...

    def run(self, job: Job) -> Result:
        """Runs `job` in a fresh place. Never raises for what the program does; ours is `SANDBOX_ERROR`."""
        ...

    def check(self, limits: Limits) -> None:
        """Raises SandboxUnavailableError where jobs with these limits can never run: for before any work."""
        ...

    def release(self, lease: str) -> None:
        """Says that no further job will name `lease`."""
        ...

    def close(self) -> None: ...

"""The interface of every sandbox backend: run one script in a fresh environment and return a typed result.

A job is a pure description (files, script, limits), so that a result can be cached by content and reproduced
anywhere. A result contains no judgement: grading happens outside, in `mlagent_jax.grading.grade`.
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
    """How an execution ended. All but `SANDBOX_ERROR` are statements about the program."""

    OK = "ok"
    FAILED = "failed"  # a non-zero exit code, or a signal that no limit explains
    TIMEOUT = "timeout"
    OOM = "oom"
    PIDS = "pids"
    DISK = "disk"
    OUTPUT_LIMIT = "output_limit"  # too many or too large files to collect
    SANDBOX_ERROR = "sandbox_error"  # our fault: retried, then masked, never scored

    @property
    def is_corner_case(self) -> bool:
        """Resource exhaustion: the paper's corner cases, rewarded neutrally (arXiv 2505.23723, 4.3)."""
        return self in {Status.TIMEOUT, Status.OOM, Status.PIDS, Status.DISK, Status.OUTPUT_LIMIT}


@dataclass(frozen=True)
class Limits:
    """The limits of one execution. Every limit has a default; none can be switched off."""

    wall_seconds: float = setting(30.0, above=0)
    cpu_seconds: int = setting(30, at_least=1)
    # Address space of each process, and memory of all together.
    memory_mb: int = setting(1024, at_least=1)
    processes: int = setting(32, at_least=1)
    open_files: int = setting(256, at_least=1)
    workspace_mb: int = setting(64, at_least=1)  # the writable workspace, in memory
    workspace_files: int = setting(1024, at_least=1)
    # Files that the next script gets: at most a quarter of the workspace.
    kept_mb: int = setting(16, at_least=1)
    # Files and folders that the next script gets: at most half of the workspace's.
    kept_files: int = setting(200, at_least=1)
    # The head and tail of stdout and stderr; the middle is dropped and counted.
    output_kb: int = setting(64, at_least=1)
    threads: int = setting(1, at_least=1)  # OMP_NUM_THREADS and the like


@dataclass(frozen=True)
class Job:
    """One script to run.

    files: workspace contents before the run, from relative POSIX paths to bytes; see `sandbox_worker.names`.
    script: path of the Python script to run, one of `files`; the working directory is the workspace root.
    output: path of the file that the script should write, which is collected whatever its size; "" for none.
    data_dir: folder of the host that is shown read-only as `data/` in the workspace, or None.
    data_digest: content hash of `data_dir`, part of the cache key.
    lease: identifies the episode. Where episodes cannot share containers, jobs of the same lease run in the same one,
        one after another; "" shares with none. It only affects how long a job takes, and is not part of the cache key.
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
    """The result of one job.

    output: stdout and stderr, interleaved as written, decoded with backslashreplace, without control characters, at
        most `limits.output_kb`; `dropped_bytes` says how much of the middle was left out.
    files: regular files of the workspace after every process had ended (without `data/`), within `limits.kept_mb` and
        `kept_files`; empty unless the program ran. They are valid as the files of a next job.
    left_out: how many others there were, by reason; see `sandbox_worker.record.LeftOut`.
    oom_kills: how many of the job's processes the kernel's OOM killer has killed, not necessarily the script itself.
        Only counted in a container, which has a control group of its own.
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
    """This host cannot provide the isolation that was asked for. The message names the remedy."""


class Sandbox(Protocol):
    """A backend. Thread-safe: as many threads as it has workers may be in `run` at once."""

    @property
    def name(self) -> str: ...

    @property
    def isolated(self) -> bool:
        """Whether code written by a model may run here."""
        ...

    def identity(self) -> Mapping[str, str]:
        """What a result depends on beside the job: interpreter, libraries, image, runtime. May call an engine."""
        ...

    def run(self, job: Job) -> Result:
        """Runs `job` in a fresh environment.

        Never raises because of the program. If the sandbox fails, the status is `SANDBOX_ERROR`.
        """
        ...

    def check(self, limits: Limits) -> None:
        """Call before any work starts. Raises SandboxUnavailableError if jobs with these limits can never run."""
        ...

    def release(self, lease: str) -> None:
        """Call when no further job will have this lease."""
        ...

    def close(self) -> None: ...

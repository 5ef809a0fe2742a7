"""Runs the jobs of a sweep on this machine, each in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from experiments.sweeps.jobs import ROOT, Job

_POLL_SECONDS = 0.2
_GRACE_SECONDS = 60.0  # to end after an interrupt; a run first finishes the checkpoint that it is writing
# Each run has a session of its own, so whatever ends this process has to be passed on.
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass
class _Running:
    job: Job
    process: subprocess.Popen[bytes]
    began: float = field(default_factory=time.monotonic)


class Sweep:
    """Runs each job once those that it needs are done. A job that fails is tried again, and goes on where it stopped.

    parallel: runs at once. retries: further tries of a run that fails.
    """

    def __init__(self, jobs: Sequence[Job], parallel: int, retries: int) -> None:
        self._jobs, self._parallel = jobs, parallel
        self._waiting = [job for job in jobs if not job.is_done]
        self._tries = {job.name: 1 + retries for job in jobs}
        self._running: list[_Running] = []
        self._seconds: list[float] = []
        self.failed: list[Job] = []

    def run(self) -> None:
        """Until nothing is left that can be run. `failed` then has the jobs that failed.

        Ctrl-C, SIGTERM and SIGHUP end all runs in order and raise KeyboardInterrupt. To be called in the main thread.
        """
        handlers = {each: signal.signal(each, _interrupt) for each in _ENDING}
        try:
            while self._running or self._next() is not None:
                while len(self._running) < self._parallel and (job := self._next()) is not None:
                    self._start(job)
                time.sleep(_POLL_SECONDS)
                for running in [one for one in self._running if one.process.poll() is not None]:
                    self._running.remove(running)
                    self._ended(running)
        finally:
            self._stop()
            for each, handler in handlers.items():
                signal.signal(each, handler)

    @property
    def left_out(self) -> list[Job]:
        """Those that could not be run, since what they need has failed."""
        return self._waiting

    def _next(self) -> Job | None:
        return next((job for job in self._waiting if job.needs is None or job.needs.is_done), None)

    def _start(self, job: Job) -> None:
        self._waiting.remove(job)
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with job.log.open("ab") as log:
            # A session of its own: Ctrl-C reaches this process alone, which then ends them in order.
            process = subprocess.Popen(
                job.command,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._running.append(_Running(job, process))
        self._say(f"{job.name} runs; its output is in {job.log}")

    def _ended(self, running: _Running) -> None:
        job, code = running.job, running.process.returncode
        seconds = time.monotonic() - running.began
        if job.is_done:
            self._seconds.append(seconds)
            self._say(f"{job.name} is done after {_minutes(seconds)}{self._time_left()}")
            return
        self._tries[job.name] -= 1
        again = self._tries[job.name] > 0
        reason = last_line(job.log) if code else "it ended without being finished"
        self._say(f"{job.name} failed (exit status {code}): {reason}{'; it is tried again' if again else ''}")
        if again:
            self._waiting.insert(0, job)
        else:
            self.failed.append(job)

    def _say(self, text: str) -> None:
        done = sum(job.is_done for job in self._jobs)
        print(f"[{done}/{len(self._jobs)}] {text}", flush=True)

    def _time_left(self) -> str:
        left = sum(not job.is_done for job in self._jobs)
        if not left:
            return ""
        mean = sum(self._seconds) / len(self._seconds)
        return f"; about {_minutes(left * mean / self._parallel)} left"

    def _stop(self) -> None:
        """Ends what still runs, as Ctrl-C would; kills it, with its children, only if that does not help."""
        for running in self._running:
            running.process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + _GRACE_SECONDS
        for running in self._running:
            try:
                running.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(running.process.pid, signal.SIGKILL)
                running.process.wait()


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def last_line(log: Path) -> str:
    """What a run said last."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else "it said nothing"


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} minutes"

"""What the models' calls have cost so far: a file with a line for each call, and a budget that stops a run in time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mlagent_jax.jsonl import append_jsonl, read_jsonl
from mlagent_jax.llm.backend import ModelError, Usage

_PREFIX = "llm"


class BudgetSpentError(ModelError):
    """The budget does not cover the next call."""


@dataclass
class RoleUsage:
    """Totals of a role since the run began.

    calls: those that its model answered. recorded_calls: those that the store answered, which cost nothing.
    abandoned_requests: those that were given up although the model may have worked on them. Nobody says what they cost,
        so `dollars` has the most that they can have.
    """

    calls: int = 0
    recorded_calls: int = 0
    abandoned_requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    dollars: float = 0.0


class UsageLog:
    """Counts calls by role. Thread-safe.

    Each call appends a line to `path` with its role's totals, so that a resumed run goes on counting. Only one process
    may write. Raises JsonlError for a damaged file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()
        self.roles = read_usage(path)
        self._step = sum(
            usage.calls + usage.recorded_calls + usage.abandoned_requests for usage in self.roles.values()
        )

    @property
    def dollars(self) -> float:
        with self._lock:
            return sum(usage.dollars for usage in self.roles.values())

    @property
    def tokens(self) -> int:
        with self._lock:
            return sum(usage.prompt_tokens + usage.completion_tokens for usage in self.roles.values())

    def add(self, role: str, usage: Usage) -> None:
        """Counts a call that the role's model has answered."""
        with self._lock:
            totals = self.roles.setdefault(role, RoleUsage())
            totals.calls += 1
            for name in vars(usage).keys() & vars(totals).keys():
                setattr(totals, name, getattr(totals, name) + getattr(usage, name))
            self._append(role, totals)

    def add_recorded(self, role: str) -> None:
        """Counts a call that the store has answered."""
        with self._lock:
            totals = self.roles.setdefault(role, RoleUsage())
            totals.recorded_calls += 1
            self._append(role, totals)

    def add_abandoned(self, role: str, dollars: float) -> None:
        """Counts a request that was given up. dollars: the most that it can have cost."""
        with self._lock:
            totals = self.roles.setdefault(role, RoleUsage())
            totals.abandoned_requests += 1
            totals.dollars += dollars
            self._append(role, totals)

    def by_role(self) -> str:
        """Such as "expert $1.20, coder $0.34"; "nothing" if there was no call."""
        with self._lock:
            return (
                ", ".join(f"{role} ${usage.dollars:.4g}" for role, usage in self.roles.items()) or "nothing"
            )

    def _append(self, role: str, totals: RoleUsage) -> None:
        self._step += 1
        self._path.parent.mkdir(parents=True, exist_ok=True)
        values = {f"{_PREFIX}/{role}/{name}": value for name, value in vars(totals).items()}
        append_jsonl(
            self._path, [{"step": self._step, **values, f"{_PREFIX}/dollars": round(self.dollars, 9)}]
        )


def read_usage(path: Path) -> dict[str, RoleUsage]:
    """The totals by role that a run's usage log ends with; none if there is no such file. Raises JsonlError."""
    found: dict[str, RoleUsage] = {}
    for record in read_jsonl(path, missing_ok=True):
        for name, value in record.items():
            _, _, rest = name.partition(f"{_PREFIX}/")
            role, _, quantity = rest.partition("/")
            if quantity:
                setattr(found.setdefault(role, RoleUsage()), quantity, value)
    return found


class Budget:
    """Lets a call begin only if what is spent, what calls in progress may cost, and its own greatest cost fit.

    dollars: the limit; below 0 for none.
    """

    def __init__(self, dollars: float, usage: UsageLog) -> None:
        self._limit = dollars
        self._usage = usage
        self._reserved: dict[object, float] = {}  # of calls in progress
        self._changed = threading.Condition()

    @contextmanager
    def reserve(self, role: str, dollars: float) -> Iterator[None]:
        """For the time of one call that costs at most `dollars`. Waits while calls in progress may leave enough.

        Raises BudgetSpentError.
        """
        mine = object()
        with self._changed:
            while self._exceeded(dollars):
                if not self._reserved:
                    raise self._error(role, dollars)
                self._changed.wait()
            self._reserved[mine] = dollars
        try:
            yield
        finally:
            with self._changed:
                del self._reserved[mine]
                self._changed.notify_all()

    def check(self, role: str, dollars: float) -> None:
        """Raises BudgetSpentError unless a call in progress may make its request, of at most `dollars`, once more."""
        with self._changed:
            if self._exceeded():
                raise self._error(role, dollars)

    def _exceeded(self, more: float = 0.0) -> bool:
        return 0 < self._limit < self._usage.dollars + sum(self._reserved.values()) + more

    def _error(self, role: str, dollars: float) -> BudgetSpentError:
        return BudgetSpentError(
            f"config.models.budget is ${self._limit:.4g}, which does not cover the next call of "
            f"config.models.{role} (at most ${dollars:.2g}): ${self._usage.dollars:.4g} are spent "
            f"({self._usage.by_role()}); finished work is kept, and the same command with a higher "
            "--config.models.budget resumes"
        )

"""Stops a run whose sandbox no longer works, instead of masking every sample of it."""

from __future__ import annotations

from collections.abc import Mapping

from mlagent_jax.sandbox.breaker import CircuitBreaker
from mlagent_jax.sandbox.interface import Job, Limits, Result, Sandbox, SandboxUnavailableError, Status

_MOST_IN_A_ROW = 12


class GuardedSandbox:
    """A sandbox that gives up for good reason; see `Sandbox`. `errors`: results that were a fault of ours."""

    def __init__(self, inner: Sandbox, breaker: CircuitBreaker | None = None) -> None:
        self._inner = inner
        self._breaker = breaker or CircuitBreaker(failures=_MOST_IN_A_ROW)
        self.errors = 0

    @property
    def name(self) -> str:
        return self._inner.name

    @property
    def isolated(self) -> bool:
        return self._inner.isolated

    def identity(self) -> Mapping[str, str]:
        """See `Sandbox.identity`."""
        return self._inner.identity()

    def run(self, job: Job) -> Result:
        """See `Sandbox.run`. Raises SandboxUnavailableError: too many faults of ours, and nothing else, in a row."""
        if not self._breaker.allows():
            raise self._refusal("it is left in peace for a while")
        result = self._inner.run(job)
        is_fault = result.status is Status.SANDBOX_ERROR
        self._breaker.record(not is_fault)
        self.errors += is_fault
        if is_fault and self._breaker.is_open:
            raise self._refusal(result.error)
        return result

    def check(self, limits: Limits) -> None:
        """See `Sandbox.check`."""
        self._inner.check(limits)

    def release(self, lease: str) -> None:
        """See `Sandbox.release`."""
        self._inner.release(lease)

    def __enter__(self) -> GuardedSandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._inner.close()

    def _refusal(self, reason: str) -> SandboxUnavailableError:
        return SandboxUnavailableError(
            f"The {self.name} sandbox has failed time after time ({reason}). No script was blamed for it. "
            "`python -m experiments.sandbox doctor` tests this host; the same command as before resumes the run."
        )

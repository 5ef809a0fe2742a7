"""Stops a run whose sandbox no longer works, instead of masking every further sample."""

from __future__ import annotations

from collections.abc import Mapping

from mlagent_jax.sandbox.circuit_breaker import CircuitBreaker
from mlagent_jax.sandbox.interface import Job, Limits, Result, Sandbox, SandboxUnavailableError, Status

_MAX_ERRORS_IN_A_ROW = 12


class GuardedSandbox:
    """A sandbox that gives up after too many errors; see `Sandbox`. `errors`: how many results were SANDBOX_ERROR."""

    def __init__(self, inner: Sandbox, breaker: CircuitBreaker | None = None) -> None:
        self._inner = inner
        self._breaker = breaker or CircuitBreaker(max_failures=_MAX_ERRORS_IN_A_ROW)
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
        """See `Sandbox.run`. Raises SandboxUnavailableError after too many SANDBOX_ERRORs in a row."""
        if not self._breaker.allows_try():
            raise self._unavailable("it is not tried again for a while")
        result = self._inner.run(job)
        is_error = result.status is Status.SANDBOX_ERROR
        self._breaker.record(not is_error)
        self.errors += is_error
        if is_error and self._breaker.is_open:
            raise self._unavailable(result.error)
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

    def _unavailable(self, reason: str) -> SandboxUnavailableError:
        return SandboxUnavailableError(
            f"The {self.name} sandbox has failed repeatedly ({reason}). No script was blamed for it. "
            "Test this host with `python -m experiments.sandbox doctor`; then resume the run with the same command."
        )

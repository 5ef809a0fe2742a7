"""The models of a run's roles, which share one store of calls, one count and one budget."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from mlagent_jax.llm.backend import Backend, ModelError
from mlagent_jax.llm.call_store import CallStore
from mlagent_jax.llm.chat_model import ChatModel
from mlagent_jax.llm.config import CHECKPOINT, ENDPOINT, LOCAL, ROLES, SCRIPTED, ModelConfig, ModelsConfig
from mlagent_jax.llm.endpoint import Endpoint, endpoint_address
from mlagent_jax.llm.local import Local
from mlagent_jax.llm.local_server import LocalServers
from mlagent_jax.llm.local_weights import weights_digest
from mlagent_jax.llm.usage import Budget, UsageLog

CALLS = "calls.sqlite"


class RoleModels:
    """Thread-safe. Close it once no role needs its model any more.

    folder: where recorded calls are kept, unless `config.cache_dir` names another, and what servers of local models
    log. usage_log: the file that counts what the run's calls cost. Neither is made before a role needs a model.
    """

    def __init__(self, config: ModelsConfig, folder: Path, usage_log: Path) -> None:
        self.config = config
        self._calls = (Path(config.cache_dir).expanduser().resolve() if config.cache_dir else folder) / CALLS
        self._usage_log = usage_log
        self._lock = threading.Lock()
        self._models: dict[str, ChatModel] = {}
        self._servers = LocalServers({role: config.of(role) for role in ROLES}, folder)
        self._shared: tuple[CallStore, UsageLog, Budget] | None = None

    def is_scripted(self, role: str) -> bool:
        return self.config.of(role).backend == SCRIPTED

    def check(self, roles: Sequence[str]) -> None:
        """Raises ModelError if the model of one of these roles cannot work; sends nothing and writes nothing."""
        asking = [role for role in roles if not self.is_scripted(role)]
        if asking and self.config.replay and not self._calls.exists():
            raise ModelError(
                f"config.models.replay is True, but there are no recorded calls in {self._calls.parent}: name the "
                "folder of the recorded run's calls in config.models.cache_dir"
            )
        for role in asking if not self.config.replay else ():
            self._open(role).close()

    def of(self, role: str) -> ChatModel:
        """The model of a role that is not scripted. Raises ModelError, CallStoreError and JsonlError."""
        with self._lock:
            if role not in self._models:
                self._models[role] = self._make(role)
            return self._models[role]

    def spent(self) -> str:
        """What the run's calls have cost so far, for progress lines; "" if there was none."""
        if self._shared is None:
            return ""
        usage = self._shared[1]
        return f"${usage.dollars:.4g}, {usage.tokens:,} tokens" if usage.roles else ""

    def spent_by_role(self) -> str:
        """Such as "expert $1.20, coder $0.34"; "" if no role has asked a model."""
        return self._shared[1].by_role() if self._shared is not None and self._shared[1].roles else ""

    def interrupt(self) -> None:
        """Ends the servers of local models, whose answers nobody has paid for, so that nothing waits for one."""
        self._servers.close()

    def close(self) -> None:
        for model in self._models.values():
            model.close()
        self._servers.close()
        if self._shared is not None:
            self._shared[0].close()

    def _make(self, role: str) -> ChatModel:
        if self._shared is None:
            usage = UsageLog(self._usage_log)
            store = CallStore(self._calls, self.config.cache_mb)
            self._shared = store, usage, Budget(self.config.budget, usage)
        config = self.config.of(role)
        backend = None if self.config.replay else self._open(role)
        if isinstance(backend, Local):
            backend.fetch()  # now, and not when some thread asks
        return ChatModel(role, config, _identity(config), backend, *self._shared)

    def _open(self, role: str) -> Backend:
        config = self.config.of(role)
        if config.backend == ENDPOINT:
            return Endpoint(role, config)
        if config.backend == LOCAL:
            return Local(role, config, self._servers.of(config.model))
        from mlagent_jax.llm.checkpoint import Checkpoint  # loads JAX

        return Checkpoint(role, config)


def _identity(config: ModelConfig) -> dict[str, str]:
    """What tells a model from others: its server and name there, or its weights and their precision."""
    if config.backend == CHECKPOINT:
        from mlagent_jax.llm.checkpoint import checkpoint_digest  # loads JAX

        return {"backend": CHECKPOINT, "weights": checkpoint_digest(config.model), "dtype": config.dtype}
    if config.backend == LOCAL:
        return {"backend": LOCAL, "weights": weights_digest(config.model)}
    return {"backend": ENDPOINT, "base_url": endpoint_address(config), "model": config.model}

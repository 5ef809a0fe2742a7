"""Servers of local models beside a run: one for each model, started when it is first asked, ended with the run."""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from absl import logging

from mlagent_jax.llm.backend import ModelError
from mlagent_jax.llm.completion import one_line
from mlagent_jax.llm.config import LOCAL, ModelConfig
from mlagent_jax.llm.llama_server import ServerOptions, check_installed
from mlagent_jax.llm.local_weights import check_name, local_weights

READY_SECONDS = 600.0  # to read the weights, from a slow disk too
_STOP_SECONDS = 5.0
_ENDING_SECONDS = 0.5  # from the end of its connections to its own
PROGRAM = (sys.executable, "-m", "mlagent_jax.llm.llama_server")


class LocalServer:
    """The server of one model, in a process of its own. Thread-safe.

    configs: of the roles that use it, by role; it suits the most demanding of each setting. log: what llama.cpp says.
    Raises ModelError if there is no such model, or no llama.cpp.
    """

    def __init__(self, configs: Mapping[str, ModelConfig], log: Path) -> None:
        self.name = next(iter(configs.values())).model
        self.roles = " and ".join(f"config.models.{role}" for role in configs)
        self._context_tokens = max(config.context_tokens for config in configs.values())
        self._parallel = max(config.parallel for config in configs.values())
        threads = [config.threads for config in configs.values()]
        self._threads = 0 if 0 in threads else max(threads)  # 0 is one on each core
        try:
            check_name(self.name)
            check_installed()
        except ModelError as error:
            raise ModelError(f"{self.roles}: {error}") from error
        self.slots = threading.BoundedSemaphore(self._parallel)
        self._log = log
        self._starting = threading.Lock()
        self._is_closed = False
        self._begun: subprocess.Popen[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._address = ""

    def fetch(self) -> None:
        """Fetches the weights, unless they are there. Raises ModelError."""
        local_weights(self.name)

    def address(self) -> str:
        """The base URL for clients; starts the server at the first call. Raises ModelError."""
        with self._starting:
            if self._is_closed:
                raise ModelError(f"{self.roles}: the run has ended the server of local:{self.name}")
            if self._process is None:
                self._start()
            return f"{self._address}/v1"

    def check_alive(self) -> None:
        """Raises ModelError if the server has ended."""
        if self._process is None:
            return
        try:
            status = self._process.wait(_ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            return
        raise ModelError(self._fault(f"ended with status {status}"))

    def close(self) -> None:
        """Ends the server for good, also while another thread waits until it is ready."""
        self._is_closed = True
        if self._begun is not None:
            self._begun.kill()  # whoever waits for it is told so
        with self._starting:
            if self._process is not None:
                _stop(self._process)

    def _start(self) -> None:
        file = str(local_weights(self.name))
        options = ServerOptions(file, self.name, self._context_tokens, self._parallel, self._threads)
        began = time.monotonic()
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("wb") as log:
            process = subprocess.Popen(
                [*PROGRAM, options.to_json()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                start_new_session=True,  # Ctrl-C is for the run, which ends it
            )
        self._begun = process
        try:
            if self._is_closed:
                raise ModelError(self._fault("was ended by the run"))
            self._address = self._ready(process, began + READY_SECONDS)
        except BaseException:
            _stop(process)
            raise
        self._process = process
        logging.info(
            "local:%s is served at %s, ready after %.1f s", self.name, self._address, time.monotonic() - began
        )

    def _ready(self, process: subprocess.Popen[bytes], deadline: float) -> str:
        """The address that the program writes, once the server there answers. Raises ModelError."""
        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            if not selector.select(deadline - time.monotonic()):
                raise ModelError(self._fault(f"was not ready after {READY_SECONDS:g} s"))
        address = process.stdout.readline().decode().strip()
        while time.monotonic() < deadline:
            if not address or process.poll() is not None:
                raise ModelError(self._fault(f"ended with status {process.wait()}"))
            if _answers(address):
                return address
            time.sleep(0.1)
        raise ModelError(self._fault("does not answer"))

    def _fault(self, what: str) -> str:
        said = self._log.read_text(errors="replace").strip().splitlines() if self._log.exists() else []
        last = f", which ends {one_line(said[-1], 200)!r}" if said else ""
        return (
            f"{self.roles}: the server of local:{self.name} {what} (see {self._log}{last}); if memory ran out, lower "
            "context_tokens or parallel, and start again: finished work is kept"
        )


class LocalServers:
    """The servers of a run's local models, which roles of the same model share. folder: for their logs."""

    def __init__(self, configs: Mapping[str, ModelConfig], folder: Path) -> None:
        self._configs = {role: config for role, config in configs.items() if config.backend == LOCAL}
        self._folder = folder
        self._servers: dict[str, LocalServer] = {}

    def of(self, name: str) -> LocalServer:
        """The server of a model; it isn't started yet. Raises ModelError."""
        if name not in self._servers:
            sharing = {role: config for role, config in self._configs.items() if config.model == name}
            log = self._folder / f"{Path(name.replace(':', '-')).name}.log"
            self._servers[name] = LocalServer(sharing, log)
        return self._servers[name]

    def close(self) -> None:
        for server in self._servers.values():
            server.close()


def _answers(address: str) -> bool:
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({})
    )  # no proxy reaches this machine's loopback
    try:
        with opener.open(f"{address}/health", timeout=5.0):
            return True
    except OSError:
        return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.close()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()

"""llama.cpp's OpenAI-compatible HTTP server over one GGUF file, and the program that a run starts it by.

That program, `python -m mlagent_jax.llm.llama_server OPTIONS`, takes `ServerOptions` as JSON, writes its address on
standard output once it answers, and ends when its standard input does: so with the process that started it, even if
that is killed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import threading
from dataclasses import asdict, dataclass
from typing import Any

from mlagent_jax.llm.backend import ModelError

LOOPBACK = "127.0.0.1"
_USUAL_TOKENS = 4096  # of most requests, with their answers


@dataclass(frozen=True)
class ServerOptions:
    """file: the GGUF file. name: the model's for clients. context_tokens: of a request with its answer.

    parallel: answers written at once. threads: 0 for one on each core. port: 0 for a free one.
    """

    file: str
    name: str
    context_tokens: int
    parallel: int
    threads: int = 0
    host: str = LOOPBACK
    port: int = 0

    @property
    def cache_tokens(self) -> int:
        """The tokens of all requests in progress together, which share one cache."""
        return max(self.context_tokens, self.parallel * min(self.context_tokens, _USUAL_TOKENS))

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def check_installed() -> None:
    """Raises ModelError unless llama.cpp is there."""
    if importlib.util.find_spec("xllamacpp") is None:
        raise ModelError(
            "a local model needs llama.cpp: pip install 'mlagent-jax[local]', or pip install xllamacpp"
        )


def start_server(options: ServerOptions) -> Any:
    """A server that answers, until the returned object is gone; its address is `listening_address`.

    Raises ModelError if it cannot start, and whatever llama.cpp raises for a file that it cannot load.
    """
    check_installed()
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path, params.model_alias = options.file, {options.name}
    params.n_ctx, params.n_parallel, params.kv_unified = options.cache_tokens, options.parallel, True
    params.hostnames, params.port = [options.host], options.port
    params.cache_ram_mib = 0  # prompts of the past, 8 GiB of them by default
    params.ui = False
    # A coder repeats most of the script that it reads: what follows there is tried first, and kept where it is right.
    params.speculative.types = [xllamacpp.common_speculative_type.COMMON_SPECULATIVE_TYPE_NGRAM_SIMPLE]
    for pool in (params.cpuparams, params.cpuparams_batch):
        pool.n_threads = options.threads or len(os.sched_getaffinity(0))
    return xllamacpp.Server(params)


def _main() -> None:
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # llama.cpp's words are for the log
    ended = threading.Thread(target=_exit_with_input, daemon=True)
    ended.start()
    server = start_server(ServerOptions(**json.loads(sys.argv[1])))
    print(server.listening_address, file=answers, flush=True)
    ended.join()


def _exit_with_input() -> None:
    while sys.stdin.buffer.read(1):
        pass
    os._exit(0)  # without waiting for answers that nobody reads


if __name__ == "__main__":
    _main()

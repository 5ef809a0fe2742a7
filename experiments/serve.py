"""Serves a model over HTTP as OpenAI does: chat completions and completions, streamed or whole.

    python -m experiments.serve --checkpoint=runs/quickstart/ppo/hf         # needs pip install -e '.[serve]'
    curl localhost:8000/v1/chat/completions -H 'Content-Type: application/json' \
        -d '{"model": "hf", "messages": [{"role": "user", "content": "Hello"}]}'

`--checkpoint` is a Hugging Face folder with a ChatML tokenizer: one that a run exports or `experiments.import_gguf`
writes, or Qwen2.5 itself. The model has the folder's name, or `--name`. /health, /metrics (Prometheus) and /v1/models
are served too. There is no authentication: listen only where every client may use it. On SIGTERM or an interrupt it
finishes the requests in progress; those not done after five seconds end with an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from experiments.cli.program import run_program
from mlagent_jax.errors import UserError
from mlagent_jax.generate.config import LOGPROBS_MODES, EngineConfig
from mlagent_jax.generate.engine import Engine
from mlagent_jax.models.hf import load_hf
from mlagent_jax.parallel.mesh import MeshConfig, make_mesh
from mlagent_jax.text.tokenizer import check_vocabulary, load_tokenizer, unused_ids

LONG = 16_384  # tokens of context that our own client assumes
USUAL = 4096  # tokens of most requests, with their answers

CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Folder with safetensors and tokenizer.", required=True)
NAME = flags.DEFINE_string("name", "", "Name of the model for clients; by default the folder's.")
HOST = flags.DEFINE_string("host", "127.0.0.1", "Address to listen on.")
PORT = flags.DEFINE_integer("port", 8000, "Port to listen on; 0 for a free one.", 0, 65535)
DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Of weights, cache and computation.")
SLOTS = flags.DEFINE_integer("slots", 16, "Answers generated at once.", lower_bound=1)
MAX_LENGTH = flags.DEFINE_integer(
    "max_length",
    0,
    f"Tokens of a prompt with its answer; 0: the model's context, at most {LONG:,}.",
    lower_bound=0,
)
CACHE_TOKENS = flags.DEFINE_integer(
    "cache_tokens",
    0,
    f"Tokens in the cache; 0: {USUAL:,} for each slot, and at least --max_length.",
    lower_bound=0,
)
TENSOR = flags.DEFINE_integer("tensor", 1, "Devices that a layer's heads are split over.", lower_bound=1)
MAX_PREFILLS_PER_STEP = flags.DEFINE_integer(
    "max_prefills_per_step",
    1,
    "Chunks of prompts prefilled before answers in progress go on; 0: every prompt that has a slot.",
    lower_bound=0,
)
MAX_REQUESTS = flags.DEFINE_integer(
    "max_requests", 1024, "Requests in progress at once; others get a 429.", 1
)
LOGPROBS_MODE = flags.DEFINE_enum(
    "logprobs_mode",
    "raw_logprobs",
    LOGPROBS_MODES,
    "Log-probs of the model itself, or of the distribution sampled from: after temperature, top-k, top-p and min-p.",
)


def main(argv: Sequence[str]) -> int:
    del argv
    serve()
    return 0


def serve() -> None:
    """Serves until interrupted. Raises UserError."""
    try:
        from mlagent_jax.serving.app import Server
        from mlagent_jax.serving.http_server import HttpServer
    except ImportError as error:
        raise UserError(f"serving needs {error.name}: pip install -e '.[serve]'") from error
    folder = Path(CHECKPOINT.value)
    tokenizer = load_tokenizer(folder)
    mesh = make_mesh(MeshConfig(tensor=TENSOR.value))
    model, params = load_hf(folder, mesh, dtype=DTYPE.value, param_dtype=DTYPE.value)
    check_vocabulary(tokenizer, model.vocab_size, str(folder))
    model = model.replace(unused_ids=unused_ids(tokenizer, model.vocab_size))
    engine = Engine(model, _engine_config(model.max_position_embeddings, str(folder)), mesh)
    engine.load(params)
    del params
    name = NAME.value or folder.resolve().name
    server = Server(engine, tokenizer, name, MAX_REQUESTS.value)
    http = HttpServer(server, name, HOST.value, PORT.value)
    try:
        http.run()
    except KeyboardInterrupt:
        pass
    except SystemExit as error:
        raise UserError(
            f"cannot listen on {HOST.value}:{PORT.value}, for the reason above; choose another --host or --port"
        ) from error


def _engine_config(trained_for: int, folder: str) -> EngineConfig:
    """trained_for: the context of the model in `folder`, in tokens."""
    max_length = MAX_LENGTH.value or min(trained_for, LONG)
    if max_length > trained_for:
        raise UserError(f"--max_length is {max_length}, but {folder} was trained for {trained_for} tokens")
    usual = max(max_length, SLOTS.value * min(max_length, USUAL))
    return EngineConfig(
        slots=SLOTS.value,
        max_length=max_length,
        cache_tokens=CACHE_TOKENS.value or usual + EngineConfig.page_size,  # it is given out in whole pages
        max_prefills_per_step=MAX_PREFILLS_PER_STEP.value,
        logprobs_mode=LOGPROBS_MODE.value,
    )


if __name__ == "__main__":
    run_program(main)

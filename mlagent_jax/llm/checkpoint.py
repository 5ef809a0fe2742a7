"""A folder of weights as a chat model on this machine: requests of all threads are decoded together by our engine."""

from __future__ import annotations

import hashlib
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import cache
from pathlib import Path

import jax

from mlagent_jax.errors import UserError
from mlagent_jax.generate.config import EngineConfig
from mlagent_jax.generate.engine import Engine
from mlagent_jax.generate.request import Request, RequestError, Sample
from mlagent_jax.generate.sampling import SamplingParams
from mlagent_jax.llm.backend import Answer, ChatRequest, ModelError, TooLongError, Usage
from mlagent_jax.llm.config import ModelConfig
from mlagent_jax.models.hf import load_config, load_hf
from mlagent_jax.parallel.mesh import MeshConfig, make_mesh
from mlagent_jax.text.chat import encode_prompt, response_text
from mlagent_jax.text.tokenizer import Tokenizer, check_vocabulary, load_tokenizer, unused_ids

_USUAL_TOKENS = 4096  # of most requests, with their answers


class Checkpoint:
    """Implements `Backend`. The weights are loaded at the first request.

    role: for messages. Raises ModelError for a folder that holds no model or one of a shorter context, and in a
    run on several hosts. It cannot hold an answer to a schema: see `ModelsConfig.conflicts`.
    """

    def __init__(self, role: str, config: ModelConfig) -> None:
        if not Path(config.model).is_dir():
            raise ModelError(
                f"config.models.{role}.model is {config.model!r}, which is no folder: name one with safetensors and a "
                "tokenizer, or set the backend to endpoint"
            )
        if jax.process_count() > 1:
            raise ModelError(
                f"config.models.{role} is a checkpoint, which a run on several hosts cannot hold: serve it by "
                "python -m experiments.serve, and set the backend to endpoint"
            )
        _check_context(role, config)
        self._role = role
        self._config = config
        self._loading = threading.Lock()
        self._thread: _EngineThread | None = None

    def ask(self, request: ChatRequest, abandoned: Callable[[], None] = lambda: None) -> Answer:
        """See `Backend.ask`."""
        thread = self._engine_thread()
        began = time.monotonic()
        prompt = encode_prompt(thread.tokenizer, request.chat).tolist()
        sample = thread.generate(prompt, request)
        text = response_text(thread.tokenizer, sample.tokens)
        problem = "" if sample.stopped else f"it was cut off at {request.max_tokens} tokens"
        usage = Usage(time.monotonic() - began, len(prompt), len(sample.tokens))
        return Answer(text, usage, problem or ("" if text.strip() else "it is empty"))

    def close(self) -> None:
        with self._loading:
            if self._thread is not None:
                self._thread.close()

    def _engine_thread(self) -> _EngineThread:
        with self._loading:
            if self._thread is None:
                self._thread = _load(self._role, self._config)
            return self._thread


class _EngineThread:
    """Steps the engine while there are requests."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._engine = engine
        self._inbox: queue.SimpleQueue[tuple[Request, Future[Sample]] | None] = queue.SimpleQueue()
        self._waiting: dict[Sample, Future[Sample]] = {}
        self._thread = threading.Thread(target=self._run, name="checkpoint", daemon=True)
        self._thread.start()

    def generate(self, prompt: list[int], request: ChatRequest) -> Sample:
        """The finished sample. Raises TooLongError, and what the engine raises."""
        engine_request = Request(
            tuple(prompt),
            (request.seed or 0,),
            request.max_tokens,
            self.tokenizer.stop_ids,
            SamplingParams(request.temperature),
        )
        try:
            self._engine.check(engine_request)
        except RequestError as error:
            raise TooLongError(str(error)) from error
        future: Future[Sample] = Future()
        self._inbox.put((engine_request, future))
        return future.result()

    def close(self) -> None:
        self._inbox.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            self._loop()
            self._fail(ModelError("the checkpoint was closed before it had answered"))
        except BaseException as error:  # whatever it is, nobody may keep waiting for this thread
            self._fail(error)
            while (item := self._inbox.get()) is not None:
                item[1].set_exception(error)

    def _fail(self, error: BaseException) -> None:
        for future in self._waiting.values():
            future.set_exception(error)

    def _loop(self) -> None:
        while True:
            while self._engine.idle or not self._inbox.empty():
                item = self._inbox.get()
                if item is None:
                    return
                self._submit(*item)
            for sample in self._engine.step():
                if sample.error:
                    self._waiting.pop(sample).set_exception(sample.error)
                elif sample.finished:
                    self._waiting.pop(sample).set_result(sample)

    def _submit(self, request: Request, future: Future[Sample]) -> None:
        try:
            (sample,) = self._engine.submit(request)
        except BaseException as error:  # the loop ends with it too
            future.set_exception(error)
            raise
        self._waiting[sample] = future


@cache
def checkpoint_digest(folder: str) -> str:
    """A digest of the files in a folder of weights, which takes about a second per GB. Raises ModelError."""
    digest = hashlib.sha256()
    try:
        for path in sorted(path for path in Path(folder).iterdir() if path.is_file()):
            with path.open("rb") as file:
                digest.update(f"{path.name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    except OSError as error:
        raise ModelError(
            f"the checkpoint {folder} can't be read ({error.strerror}): check the folder"
        ) from error
    return digest.hexdigest()


def _check_context(role: str, config: ModelConfig) -> None:
    try:
        trained_for = load_config(config.model).max_position_embeddings
    except UserError as error:
        raise ModelError(f"config.models.{role}: {error}") from error
    if config.context_tokens > trained_for:
        raise ModelError(
            f"config.models.{role}.context_tokens is {config.context_tokens}, but {config.model} was trained for "
            f"{trained_for} tokens; lower it"
        )


def _load(role: str, config: ModelConfig) -> _EngineThread:
    try:
        tokenizer = load_tokenizer(Path(config.model))
        mesh = make_mesh(MeshConfig())
        model, params = load_hf(config.model, mesh, dtype=config.dtype, param_dtype=config.dtype)
        check_vocabulary(tokenizer, model.vocab_size, config.model)
    except UserError as error:
        raise ModelError(f"config.models.{role}: {error}") from error
    model = model.replace(unused_ids=unused_ids(tokenizer, model.vocab_size))
    engine = Engine(model, _engine_config(config), mesh)
    engine.load(params)
    return _EngineThread(engine, tokenizer)


def _engine_config(config: ModelConfig) -> EngineConfig:
    usual = max(config.context_tokens, config.parallel * min(config.context_tokens, _USUAL_TOKENS))
    return EngineConfig(
        slots=config.parallel,
        max_length=config.context_tokens,
        cache_tokens=usual + EngineConfig.page_size,  # it is given out in whole pages
    )

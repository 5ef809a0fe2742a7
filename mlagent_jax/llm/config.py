"""Settings: which language model plays each role, and what all of them may cost together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from mlagent_jax.fields import setting

SCRIPTED, ENDPOINT, CHECKPOINT, LOCAL = "scripted", "endpoint", "checkpoint", "local"
ROLES = ("expert", "coder", "idea_writer", "agent")
TOKEN_LIMITS = ("auto", "max_tokens", "max_completion_tokens")
CALLS_MB = 4096.0
DEFAULT_LOCAL = "qwen2.5-coder-1.5b"
_MILLION = 1_000_000


@dataclass(frozen=True)
class Prices:
    """In dollars for a million tokens. cached_input: of prompt tokens in the server's cache; -1: as `input`."""

    input: float = setting(0.0, at_least=0, defines_run=False)
    cached_input: float = setting(-1.0, at_least=0, or_value=-1, defines_run=False)
    output: float = setting(0.0, at_least=0, defines_run=False)

    def dollars(self, prompt_tokens: float, completion_tokens: float, cached_tokens: float = 0) -> float:
        """The price of a call; cached_tokens: those of the prompt's that were in the server's cache."""
        cached = self.input if self.cached_input < 0 else self.cached_input
        known = min(cached_tokens, prompt_tokens)
        return (
            (prompt_tokens - known) * self.input + known * cached + completion_tokens * self.output
        ) / _MILLION


@dataclass(frozen=True)
class ModelConfig:
    """One role's model.

    backend: "scripted" for the built-in stand-in, which costs nothing; "endpoint" for an OpenAI-compatible server;
        "checkpoint" for a folder of weights in our own engine, on this machine; "local" for a small model that
        llama.cpp serves on this machine, as long as the run needs it.
    model: its name at the endpoint, or the checkpoint's folder (Hugging Face safetensors and tokenizer), or the local
        model: qwen2.5-coder-1.5b, qwen2.5-coder-0.5b, the path of a GGUF file, or OWNER/REPOSITORY:FILE.gguf on the
        Hugging Face hub; "" for the first. Roles with the same local model share one server, with the largest of
        their settings.
    base_url: of the endpoint, such as "http://localhost:8000/v1"; "" for OpenAI's.
    api_key_variable: the environment variable with the endpoint's key. "": OPENAI_API_KEY for OpenAI's endpoint, and
        no key for another.
    price: of the endpoint's tokens. Without it, calls count as free.
    temperature: 0 for always the likeliest token. max_tokens: of an answer, a reasoning model's thoughts included.
    context_tokens: the model's context; an episode ends before its history exceeds it, assuming 3 characters per token.
    token_limit: the name by which the endpoint wants `max_tokens`. "auto": max_tokens, or max_completion_tokens once
        the endpoint has answered that it wants that.
    parallel: the number of concurrent requests. A local model's cache has room for one of `context_tokens`, and for
        that many of 4,096.
    timeout_seconds: after which a request to the endpoint is given up, when its next part arrives or none does for as
        long: so it takes at most twice as long once the answer begins. A local model has a second for each of
        `max_tokens` at least.
    retries: after the first attempt, with growing pauses, or those that the server asks for.
    dtype: of a checkpoint's weights, cache and computation.
    threads: of a local model; 0 for one on each core.
    """

    backend: str = setting(SCRIPTED, choices=(SCRIPTED, ENDPOINT, CHECKPOINT, LOCAL))
    model: str = setting("")
    base_url: str = setting("", defines_run=False)
    api_key_variable: str = setting("", defines_run=False)
    price: Prices = field(default_factory=Prices)
    temperature: float = setting(0.0, at_least=0)
    max_tokens: int = setting(4096, at_least=1)
    context_tokens: int = setting(16_384, at_least=2)
    token_limit: str = setting("auto", choices=TOKEN_LIMITS, defines_run=False)
    parallel: int = setting(8, at_least=1, at_most=4096, defines_run=False)
    timeout_seconds: float = setting(120.0, above=0, defines_run=False)
    retries: int = setting(5, at_least=0, at_most=100, defines_run=False)
    dtype: str = setting("float32", choices=("float32", "bfloat16"))
    threads: int = setting(0, at_least=0, at_most=1024, defines_run=False)

    def __post_init__(self) -> None:
        if self.backend == LOCAL and not self.model:
            object.__setattr__(self, "model", DEFAULT_LOCAL)


@dataclass(frozen=True)
class IdeaWriterConfig(ModelConfig):
    """The idea writer. structured_output: ask the server for JSON of a fixed schema, instead of a list in text."""

    temperature: float = setting(1.0, at_least=0)
    structured_output: bool = False


@dataclass(frozen=True)
class ExpertConfig(ModelConfig):
    """The expert. structured_output: ask the server for JSON with the response's fields, instead of fields in text.

    It helps small models to keep the format, if the server supports `response_format` with a JSON schema (OpenAI, vLLM,
    llama.cpp). Responses are stored in the usual format.
    """

    temperature: float = setting(0.7, at_least=0)
    max_tokens: int = setting(1024, at_least=1)
    structured_output: bool = False


@dataclass(frozen=True)
class AgentConfig(ExpertConfig):
    """The model that is evaluated as agent "llm"; as the expert's, but never scripted."""

    backend: str = setting(ENDPOINT, choices=(ENDPOINT, CHECKPOINT, LOCAL))


@dataclass(frozen=True)
class CoderConfig(ModelConfig):
    """The coder. answer: what it writes: the whole edited "script", or search-and-replace "blocks", which are shorter.

    A whole script is taken from a coder that was asked for blocks, too.
    """

    answer: str = setting("script", choices=("script", "blocks"))


@dataclass(frozen=True)
class ModelsConfig:
    """Who plays each role, and what the models' calls may cost.

    budget: dollars that the calls of a run may cost; -1 for any. The run stops before the call that could exceed it.
        A request that was given up, and an answer whose tokens the server does not count, cost the most they can.
    replay: answer every call from the store, and fail where an answer is not there: no model is needed.
    cache_dir: a folder of recorded calls that all runs which name it share, at the same time too; on a local disk. ""
        keeps them in the work directory.
    cache_mb: above this size, in MiB, the least recently used calls are removed.
    """

    budget: float = setting(-1.0, above=0, or_value=-1, defines_run=False)
    replay: bool = setting(False, defines_run=False)
    cache_dir: str = setting("", defines_run=False)
    cache_mb: float = setting(CALLS_MB, at_least=1, defines_run=False)
    expert: ExpertConfig = field(default_factory=ExpertConfig)
    coder: CoderConfig = field(default_factory=CoderConfig)
    idea_writer: IdeaWriterConfig = field(default_factory=IdeaWriterConfig)
    agent: AgentConfig = field(default_factory=AgentConfig)

    def of(self, role: str) -> ModelConfig:
        """The settings of one of `ROLES`."""
        config: ModelConfig = getattr(self, role)
        return config

    def conflicts(self, agent_is_used: bool) -> list[str]:
        """Settings that contradict each other, one sentence each. agent_is_used: whether the role "agent" is played."""
        used = {
            role: self.of(role)
            for role in ROLES
            if self.of(role).backend != SCRIPTED and (role != "agent" or agent_is_used)
        }
        found = [problem for role, config in used.items() for problem in _problems(role, config)]
        found += [
            f"config.models.{role}.model is {self.of(role).model!r}, but config.models.{role}.backend is 'scripted', "
            "which needs no model; set it to endpoint, checkpoint or local"
            for role in ROLES
            if self.of(role).backend == SCRIPTED and self.of(role).model
        ]
        return found + self._unpriced(used)

    def _unpriced(self, used: Mapping[str, ModelConfig]) -> list[str]:
        """A budget that nothing can be counted against."""
        if self.budget < 0:
            return []
        free = [
            role
            for role, config in used.items()
            if config.backend == ENDPOINT and not (config.price.input or config.price.output)
        ]
        # One's own server may well be free, OpenAI's is not.
        unknown = [role for role in free if not used[role].base_url]
        if free and len(free) == sum(config.backend == ENDPOINT for config in used.values()):
            unknown = unknown or free
        return [
            f"config.models.budget is {self.budget:g}, but config.models.{role} has no price; set "
            f"config.models.{role}.price.input and .output, in dollars for a million tokens"
            for role in unknown
        ]


def _problems(role: str, config: ModelConfig) -> list[str]:
    found = []
    if not config.model:
        meant = "the model's name at that endpoint" if config.backend == ENDPOINT else "a folder of weights"
        found.append(
            f"config.models.{role} has the backend {config.backend!r}, but config.models.{role}.model is ''; set it to "
            f"{meant}"
        )
    found += _exposed(role, config)
    if config.backend == CHECKPOINT and getattr(config, "structured_output", False):
        found.append(
            f"config.models.{role}.structured_output is True, but config.models.{role}.backend is 'checkpoint', whose "
            "engine cannot hold answers to a schema; set it to False, or use an endpoint that can"
        )
    if config.max_tokens >= config.context_tokens:
        found.append(
            f"config.models.{role}.max_tokens is {config.max_tokens}, but must leave room for the prompt in "
            f"context_tokens, {config.context_tokens}"
        )
    return found


def _exposed(role: str, config: ModelConfig) -> list[str]:
    """Settings that seem to hold a secret, which messages and config.json would show; so they are not quoted."""
    found = []
    if config.api_key_variable and not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", config.api_key_variable):
        found.append(
            f"config.models.{role}.api_key_variable is no name of an environment variable; put the key into one, such "
            "as CODER_KEY, and set it to that name"
        )
    if "@" in config.base_url:
        found.append(
            f"config.models.{role}.base_url holds a user or password; put a key into an environment variable, and "
            f"name that in config.models.{role}.api_key_variable"
        )
    return found

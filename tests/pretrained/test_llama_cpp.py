"""Qwen2.5-Coder-0.5B-Instruct served by llama.cpp: it keeps to a schema and to its context, and edits a script."""

import json
import subprocess
import sys

import jsonschema
import pytest

from mlagent_jax.agent.llm_coder import LLMCoder
from mlagent_jax.agent.response import parse
from mlagent_jax.agent.structured import read_structured, response_schema
from mlagent_jax.environment.state import Action
from mlagent_jax.llm.backend import ChatRequest, TooLongError
from mlagent_jax.llm.config import ModelConfig, ModelsConfig
from mlagent_jax.llm.roles import RoleModels
from mlagent_jax.text.chat import Message

pytestmark = pytest.mark.timeout(900)


def request(text, max_tokens=16, schema=None):
    return ChatRequest((Message("user", text),), max_tokens, 0.0, None, schema)


@pytest.mark.slow  # the fast tests ask a stand-in for a schema
def test_answers_to_a_schema_are_responses(served):
    schema = response_schema(thought=True)
    chat = "Improve train.py, which trains a model. First list the files. Be very brief."
    answer = served.ask(request(chat, 256, schema))
    jsonschema.validate(json.loads(answer.text), schema)
    assert isinstance(parse(read_structured(answer.text, thought=True)), Action)


def test_a_prompt_beyond_the_context_is_too_long(served):
    with pytest.raises(TooLongError):
        served.ask(request("word " * 8192))
    assert served.ask(request("Say hi.")).text


def test_it_edits_a_script(served, qwen_file, tmp_path):
    config = ModelConfig("local", str(qwen_file), context_tokens=2048, max_tokens=512, parallel=1)
    models = RoleModels(ModelsConfig(coder=config), tmp_path / "llm", tmp_path / "llm" / "metrics.jsonl")
    script = "import math\n\nseed = 1\nprint(math.sqrt(seed))\n"
    try:
        edited = LLMCoder(models.of("coder")).edit(script, "Set seed to 16.")
    finally:
        models.close()
    done = subprocess.run([sys.executable, "-c", edited], capture_output=True, text=True)
    assert done.stdout.strip() == "4.0", edited

"""Converts a GGUF file of a Llama or Qwen2 model to a Hugging Face folder, which a run or `transformers` can load.

    python -m experiments.import_gguf model.gguf FOLDER --dtype=bfloat16       # needs pip install -e '.[gguf]'

Quantised tensors are dequantised, which does not restore their precision. Byte-level BPE tokenizers, the chat template
and the ids that end an answer are converted too. If the file has one matrix as both output and embedding, the model
becomes a tied one, which is reported. Whatever is not supported is refused by name.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
from absl import flags

from experiments.cli.program import USAGE_ERROR, run_program
from mlagent_jax.models.gguf import GGUFModel
from mlagent_jax.models.hf.checkpoint import DTYPES
from mlagent_jax.models.hf.names import hf_tensors
from mlagent_jax.models.hf.save import GENERATION_CONFIG, replaced_export, write_description
from mlagent_jax.models.hf.shards import MAX_SHARD_BYTES, TensorSpec, plan_shards, write_index, write_shard
from mlagent_jax.text.gguf_tokenizer import stop_ids_from_gguf, tokenizer_from_gguf

DTYPE = flags.DEFINE_enum("dtype", "float32", sorted(DTYPES.values()), "Type of the tensors in the folder.")


def import_gguf(file: str | Path, folder: str | Path, dtype: str = "float32") -> list[str]:
    """Converts `file`, and returns notes on it for the user, a sentence each.

    Raises GGUFError or TokenizerError for a file that cannot be converted; `folder` is written atomically.
    """
    model = GGUFModel(file)
    config = model.config.replace(param_dtype=dtype)
    model.check()
    tokenizer = tokenizer_from_gguf(model.metadata)
    specs = [TensorSpec(tensor.name, tensor.shape, dtype) for tensor in hf_tensors(config)]
    shards = plan_shards(specs, MAX_SHARD_BYTES)
    with replaced_export(Path(folder)) as aside:
        for name, shard in shards.items():
            write_shard(
                aside / name, shard, (model.read(spec.name).astype(jnp.dtype(dtype)) for spec in shard)
            )
        write_index(aside, shards)
        write_description(aside, config, None)
        tokenizer.save_pretrained(aside)
        ends = {"eos_token_id": stop_ids_from_gguf(model.metadata), "pad_token_id": tokenizer.pad_token_id}
        (aside / GENERATION_CONFIG).write_text(json.dumps(ends, indent=2) + "\n")
    return model.notes


def main(argv: Sequence[str]) -> int:
    if len(argv) != 3:
        given = " ".join(argv[1:]) or "nothing"
        print(
            f"error: expected a file and a folder, but got {given}: "
            "python -m experiments.import_gguf FILE FOLDER [--dtype=bfloat16]",
            file=sys.stderr,
        )
        return USAGE_ERROR
    for note in import_gguf(argv[1], argv[2], DTYPE.value):
        print(note)
    print(f"wrote {argv[2]}")
    return 0


if __name__ == "__main__":
    run_program(main, positional=True)

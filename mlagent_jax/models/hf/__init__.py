"""Reading and writing Hugging Face checkpoints: a folder with `config.json` and safetensors files."""

from mlagent_jax.models.hf.checkpoint import HfCheckpointError
from mlagent_jax.models.hf.load import load_config, load_hf
from mlagent_jax.models.hf.save import save_hf

__all__ = ["HfCheckpointError", "load_config", "load_hf", "save_hf"]

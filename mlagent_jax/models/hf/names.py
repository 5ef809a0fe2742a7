"""How the tensors of a Hugging Face Qwen2 or Llama checkpoint map to our parameters."""

from __future__ import annotations

from dataclasses import dataclass

from flax.traverse_util import flatten_dict

from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.qwen2 import abstract_params

Path = tuple[str, ...]  # of an array in the tree of parameters

_LAYER: dict[Path, str] = {
    ("input_norm", "scale"): "input_layernorm.weight",
    ("mlp_norm", "scale"): "post_attention_layernorm.weight",
    **{("attention", f"{x}_proj", "kernel"): f"self_attn.{x}_proj.weight" for x in "qkvo"},
    **{("attention", f"{x}_proj", "bias"): f"self_attn.{x}_proj.bias" for x in "qkv"},
    **{("mlp", f"{x}_proj", "kernel"): f"mlp.{x}_proj.weight" for x in ("gate", "up", "down")},
}
_TOP: dict[Path, str] = {
    ("embed",): "model.embed_tokens.weight",
    ("norm", "scale"): "model.norm.weight",
    ("lm_head",): "lm_head.weight",
}
_TRANSPOSED = ("kernel", "lm_head")


@dataclass(frozen=True)
class HfTensor:
    """One tensor of a checkpoint.

    shape: as stored in the checkpoint. path: of our array that it belongs to. layer: its index along that array's axis
    L, or None if it is the whole array. transposed: the checkpoint stores [out, in], we store [in, out].
    """

    name: str
    shape: tuple[int, ...]
    path: Path
    layer: int | None
    transposed: bool


def hf_tensors(config: Qwen2Config) -> list[HfTensor]:
    """Every tensor of the checkpoint that `config` describes, layer by layer."""
    tensors = []
    for path, leaf in flatten_dict(abstract_params(config)).items():
        stacked, transposed = path[0] == "layers", path[-1] in _TRANSPOSED
        ours = leaf.shape[1:] if stacked else leaf.shape
        for layer in range(config.num_hidden_layers) if stacked else (None,):
            name = _TOP[path] if layer is None else f"model.layers.{layer}.{_LAYER[path[1:]]}"
            tensors.append(HfTensor(name, ours[::-1] if transposed else ours, path, layer, transposed))
    return sorted(tensors, key=lambda t: -1 if t.layer is None else t.layer)

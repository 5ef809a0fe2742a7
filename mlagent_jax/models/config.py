"""The architecture of a Qwen2, Qwen2.5 or Llama model, and how it is executed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from mlagent_jax.fields import setting
from mlagent_jax.models.lora import LoRAConfig
from mlagent_jax.models.remat import REMAT_POLICIES
from mlagent_jax.nn.attention import BACKENDS, check_backend
from mlagent_jax.nn.vocabulary import UnusedIds

DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Qwen2Config:
    """Architecture (field names as in a Hugging Face `config.json`) and execution (our own fields).

    It is hashable, so it can be a static argument of a jitted function.

    attention: backend of `mlagent_jax.nn.attention`. It is set here and never guessed from the devices present, so that
        the same model can be lowered for hardware that this machine does not have.
    query_chunk: tokens; queries per block of the `xla_chunked` backend.
    logits_chunk: tokens of each row whose logits exist at a time in losses. A few thousand over all rows of a device
        keep an accelerator busy; 128 are good on a CPU.
    remat: what a layer keeps for the backward pass, one of `models.remat.REMAT_POLICIES`.
    scan_layers: run the layers as one `lax.scan` (compile time does not depend on depth), or unrolled.
    dtype: of activations, one of `DTYPES`. Norms, rotations, softmax, logits and sums are computed in float32.
    param_dtype: of stored parameters, except adapters and a critic's head, which are always float32.
    lora: adapters beside the kernels; then only these are trained.
    unused_ids: ranges [start, stop) of ids for which the tokenizer has no token. They are never sampled and have no
        part in any log-probability: the matrices have rows for them, but the distribution is over tokens only.
    """

    vocab_size: int = setting(at_least=1)
    hidden_size: int = setting(at_least=1)
    intermediate_size: int = setting(at_least=1)
    num_hidden_layers: int = setting(at_least=1)
    num_attention_heads: int = setting(at_least=1)
    num_key_value_heads: int = setting(at_least=1)
    head_dim: int = setting(0, at_least=0)  # 0: hidden_size / num_attention_heads
    max_position_embeddings: int = setting(32768, at_least=1)
    rope_theta: float = setting(1_000_000.0, above=0)
    rms_norm_eps: float = setting(1e-6, above=0)
    tie_word_embeddings: bool = False
    attention_bias: bool = True
    initializer_range: float = setting(0.02, above=0)
    attention: str = setting("xla_chunked", choices=BACKENDS, defines_run=False)
    query_chunk: int = setting(128, at_least=1, defines_run=False)
    logits_chunk: int = setting(128, at_least=1, defines_run=False)
    remat: str = setting("none", choices=REMAT_POLICIES, defines_run=False)
    scan_layers: bool = setting(True, defines_run=False)
    dtype: str = setting("float32", choices=DTYPES)
    param_dtype: str = setting("float32", choices=DTYPES)
    lora: LoRAConfig | None = None
    unused_ids: UnusedIds = ()

    def __post_init__(self) -> None:
        if not self.head_dim:
            if self.hidden_size % self.num_attention_heads:
                raise ValueError(
                    f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads "
                    f"{self.num_attention_heads}; set head_dim"
                )
            object.__setattr__(self, "head_dim", self.hidden_size // self.num_attention_heads)
        for name in (*_HF_REQUIRED, "head_dim", "max_position_embeddings", "query_chunk", "logits_chunk"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads {self.num_attention_heads} is not a multiple of num_key_value_heads "
                f"{self.num_key_value_heads}"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim must be even for rotary embeddings, got {self.head_dim}")
        if self.remat not in REMAT_POLICIES:
            raise ValueError(
                f"unknown remat policy {self.remat!r}; choose one of {', '.join(REMAT_POLICIES)}"
            )
        for name in ("dtype", "param_dtype"):
            if getattr(self, name) not in DTYPES:
                raise ValueError(f"{name} is {getattr(self, name)!r}, but must be one of {', '.join(DTYPES)}")
        check_backend(self.attention)
        if self.attention == "cudnn" and self.dtype not in ("bfloat16", "float16"):
            raise ValueError(
                f"attention 'cudnn' computes in bfloat16 or float16, but dtype is {self.dtype!r}; set one of them, or "
                "attention 'xla'"
            )

    @classmethod
    def from_hf(cls, hf: Mapping[str, Any], **execution: Any) -> Qwen2Config:
        """Reads the `config.json` of a Hugging Face Qwen2 or Llama model; `execution` sets our own fields.

        Llama is Qwen2 without the biases of queries, keys and values. Raises ValueError naming every feature of the
        file that is not implemented here, with its value.
        """
        if "model_type" not in hf:
            raise ValueError("the model's config.json lacks model_type")
        refused = _unsupported(hf)
        if refused:
            raise ValueError(f"this model does not implement {'; '.join(refused)}")
        fields = {name: hf[name] for name in _HF_FIELDS if hf.get(name) is not None}
        if hf["model_type"] == "llama":  # checkpoints from before grouped heads lack the field
            fields.setdefault("num_key_value_heads", fields.get("num_attention_heads"))
        missing = [name for name in _HF_REQUIRED if fields.get(name) is None]
        if missing:
            raise ValueError(f"the model's config.json lacks {', '.join(missing)}")
        fields["attention_bias"] = hf["model_type"] == "qwen2"
        # 10,000 is the default of both models in transformers.
        fields["rope_theta"] = float(_rope(hf).get("rope_theta") or hf.get("rope_theta") or 10_000.0)
        return cls(**{**fields, **execution})

    def to_hf(self) -> dict[str, Any]:
        """A `config.json` that versions 4 and 5 of `transformers` can both read.

        The architecture is Qwen2ForCausalLM, or LlamaForCausalLM for a model without biases.
        """
        fields = {name: getattr(self, name) for name in _HF_FIELDS}
        kind = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "use_sliding_window": False}
        if not self.attention_bias:
            kind = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
            kind |= {"attention_bias": False, "mlp_bias": False}
        return {
            **kind,
            "hidden_act": "silu",
            "attention_dropout": 0.0,
            "torch_dtype": self.param_dtype,
            **fields,
        }

    def replace(self, **changes: Any) -> Qwen2Config:
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def num_parameters(self) -> int:
        D, F, H = self.hidden_size, self.intermediate_size, self.head_dim
        heads, kv_heads = self.num_attention_heads * H, self.num_key_value_heads * H
        biases = heads + 2 * kv_heads if self.attention_bias else 0
        layer = 2 * D * heads + 2 * D * kv_heads + biases + 3 * D * F + 2 * D
        embeddings = self.vocab_size * D * (1 if self.tie_word_embeddings else 2)
        return self.num_hidden_layers * layer + embeddings + D


# Fields that say how a model is computed, and that its checkpoint does not decide.
EXECUTION = ("attention", "query_chunk", "logits_chunk", "remat", "scan_layers", "dtype", "param_dtype")

_HF_REQUIRED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
)
_HF_FIELDS = (
    *_HF_REQUIRED,
    "head_dim",
    "max_position_embeddings",
    "rope_theta",
    "rms_norm_eps",
    "tie_word_embeddings",
    "initializer_range",
)


def _rope(hf: Mapping[str, Any]) -> Mapping[str, Any]:
    """The file's settings of rotary embeddings, as transformers 5 or 4 writes them."""
    return {**(hf.get("rope_scaling") or {}), **(hf.get("rope_parameters") or {})}


def _unsupported(hf: Mapping[str, Any]) -> list[str]:
    """The settings in `hf` that change the computation in a way that is not implemented here."""
    model_type = hf["model_type"]
    if model_type not in ("qwen2", "llama"):
        return [f"model_type={model_type!r} (only 'qwen2' and 'llama')"]
    rope = _rope(hf)
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    # In Llama the flag adds a bias to o_proj as well; in Qwen2 q, k and v always have one, whatever the file says.
    bias = model_type == "qwen2"
    checks = {
        "architectures": not all(name.endswith("ForCausalLM") for name in hf.get("architectures") or ()),
        "hidden_act": hf.get("hidden_act", "silu") != "silu",
        "attention_bias": bool(hf.get("attention_bias", bias)) != bias,
        "attention_dropout": bool(hf.get("attention_dropout")),
        "use_sliding_window": bool(hf.get("use_sliding_window")),
        "layer_types": any(kind != "full_attention" for kind in hf.get("layer_types") or ()),
        "quantization_config": hf.get("quantization_config") is not None,
        "num_experts": bool(hf.get("num_experts")),
        "num_local_experts": bool(hf.get("num_local_experts")),
        "mlp_bias": bool(hf.get("mlp_bias")),
        "pretraining_tp": hf.get("pretraining_tp", 1) not in (None, 1),
    }
    refused = [f"{name}={hf[name]!r}" for name, bad in checks.items() if bad]
    if rope_type != "default":
        refused.append(f"rope type {rope_type!r}")
    rotated = rope.get("partial_rotary_factor", hf.get("partial_rotary_factor")) or 1
    if rotated != 1:
        refused.append(f"partial_rotary_factor={rotated!r}")
    return refused


def qwen2_5(size: str, **execution: Any) -> Qwen2Config:
    """A published Qwen2.5 model, from "0.5b" to "72b" (technical report, arXiv 2412.15115).

    Raises ValueError for any other size.
    """
    #        D     F      L   N   K  V        tied
    sizes = {
        "0.5b": (896, 4864, 24, 14, 2, 151_936, True),
        "1.5b": (1536, 8960, 28, 12, 2, 151_936, True),
        "3b": (2048, 11_008, 36, 16, 2, 151_936, True),
        "7b": (3584, 18_944, 28, 28, 4, 152_064, False),
        "14b": (5120, 13_824, 48, 40, 8, 152_064, False),
        "32b": (5120, 27_648, 64, 40, 8, 152_064, False),
        "72b": (8192, 29_568, 80, 64, 8, 152_064, False),
    }
    if size not in sizes:
        raise ValueError(f"unknown Qwen2.5 size {size!r}; choose one of {', '.join(sizes)}")
    D, F, L, N, K, V, tied = sizes[size]
    return Qwen2Config(
        vocab_size=V,
        hidden_size=D,
        intermediate_size=F,
        num_hidden_layers=L,
        num_attention_heads=N,
        num_key_value_heads=K,
        tie_word_embeddings=tied,
        **execution,
    )

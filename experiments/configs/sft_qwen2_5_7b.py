"""The paper's supervised fine-tuning: Qwen2.5-7B, all weights, 64 trajectories of at most 15,000 tokens a step.

    python -m experiments.plan --config=experiments/configs/sft_qwen2_5_7b.py --target=h100-8 --stages=sft
    python -m experiments.run --config=experiments/configs/sft_qwen2_5_7b.py --workdir=runs/sft_7b \
        --stages=ideas,collect,sft

Hardware: 8 GPUs with 80 GB (the paper: 8 A100), with XLA_PYTHON_CLIENT_MEM_FRACTION=0.95. For other hardware the
planner names the settings to change. The planner expects, on 8 H100, 26 of each GPU's 79 GiB and at least 8.5 s per
step of 64 full rows; with `--config.model.shape.remat=dots`, 61 GiB and 6.9 s. Other targets: launch/README.md. This
configuration has not been run yet.

The values are those of arXiv 2505.23723, appendix C.1, and of the authors' SFT script: base model, 2 epochs, global
batch 64, learning rate 2e-5 with cosine decay, no warm-up, no weight decay, bf16. Their batch is 64 trajectories, and
so is this one (`batch_sequences`), packed into as few rows of 15,000 tokens as possible; with `batch_sequences` 0 a
step would have `batch_rows` packed rows of several trajectories each. The loss is the mean over the action tokens of
all 64.

Weights: put Qwen2.5-7B (base) as a Hugging Face folder at `model.pretrained`; the planner does not need them. The
expert and the tasks are the quickstart's, as the paper's trajectories are not published. Use a stronger expert with
`--config.models.expert.backend=endpoint`; experiments/README.md shows the paper's models in their roles.
"""

from ml_collections import ConfigDict

from experiments.configs import quickstart


def get_config() -> ConfigDict:
    config = quickstart.get_config()
    config.prompt = ConfigDict({"style": "full", "thought": True})
    config.collect.episodes_per_task = 1100  # about 10,000 trajectories over the paper's nine tasks
    config.model = ConfigDict(
        {
            "pretrained": "weights/Qwen2.5-7B",
            "size": "7b",
            "shape": {
                "attention": "cudnn",
                "dtype": "bfloat16",
                "param_dtype": "float32",
                "remat": "full",
                "logits_chunk": 1024,
            },
        }
    )
    config.sampling = ConfigDict(
        {"max_new_tokens": 512, "batch": 32, "max_length": 15_000, "cache_tokens": 131_072}
    )
    config.mesh = ConfigDict({"data": 1, "fsdp": -1, "tensor": 1, "sequence": 1})
    config.sft = ConfigDict(
        {
            "row_length": 15_000,
            "batch_sequences": 64,
            "micro_rows": 8,  # one row per GPU at a time
            "epochs": 2.0,
            "optimiser": {
                "name": "adamw",
                "learning_rate": 2e-5,
                "schedule": "cosine",
                "warmup_steps": 0,
                "weight_decay": 0.0,
                "clip_norm": 1.0,
            },
        }
    )
    config.ppo = ConfigDict({"row_length": 15_000, "micro_rows": 8})
    config.evaluate = ConfigDict({"episodes": 8, "agents": ("starter", "expert", "sft"), "temperature": 1.0})
    return config

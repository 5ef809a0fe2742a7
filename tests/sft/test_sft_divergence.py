"""Fine-tuning that diverges ends with one clear error; checkpoints saved before that are finite and are kept."""

import jax
import numpy as np
import pytest

from mlagent_jax.finite import NotFiniteError
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.qwen2 import init_params
from mlagent_jax.parallel.mesh import MeshConfig, make_mesh
from mlagent_jax.sft.config import SFTConfig
from mlagent_jax.sft.loop import train
from mlagent_jax.text.chat import Encoded
from mlagent_jax.training.optimisers import OptimiserConfig
from mlagent_jax.training.stage_checkpoints import load_params

MODEL = Qwen2Config(30, 16, 24, 1, 2, 1)
MESH = make_mesh(MeshConfig())


def sequences(count=6, length=12):
    rng = np.random.default_rng(0)
    return [
        Encoded(rng.integers(0, 30, length).astype(np.int32), np.arange(length) >= 4, ((4, length),))
        for _ in range(count)
    ]


def run(folder, learning_rate, **changes):
    settings = {"steps": 4, "checkpoint_every": 1, "keep": 2, "eval_fraction": 0.0} | changes
    config = SFTConfig(
        row_length=16,
        batch_rows=2,
        micro_rows=2,
        optimiser=OptimiserConfig(learning_rate=learning_rate),
        **settings,
    )
    return train(config, MODEL, init_params(MODEL, 0), sequences(), folder, MESH)


def saved_steps(folder):
    return sorted(int(path.name) for path in (folder / "checkpoints").iterdir())


@pytest.mark.parametrize(
    "learning_rate, cadence", [(1e25, {"steps": 1}), (3e38, {"checkpoint_every": 3, "log_every": 3})]
)
def test_a_learning_rate_that_is_far_too_high(learning_rate, cadence, tmp_path):
    with pytest.raises(NotFiniteError) as error:
        run(tmp_path, learning_rate, **cadence)
    message = str(error.value)
    assert message.startswith("SFT diverged: the ") and " not finite" in message
    assert f"at learning rate {learning_rate:g}" in message and "Lower sft.optimiser.learning_rate" in message
    assert saved_steps(tmp_path) == []


def test_earlier_checkpoints_are_kept(tmp_path):
    run(tmp_path, 1e-3, steps=2)
    before = load_params(tmp_path, MODEL, MESH)
    with pytest.raises(NotFiniteError, match=r"SFT diverged: .* step 3, at learning rate 1e\+25"):
        run(tmp_path, 1e25, steps=4)
    assert saved_steps(tmp_path) == [1, 2]
    jax.tree.map(np.testing.assert_array_equal, load_params(tmp_path, MODEL, MESH), before)
    run(tmp_path, 1e-3, steps=4)  # training resumes from them
    assert saved_steps(tmp_path) == [3, 4]


def test_weights_to_start_from_that_are_not_finite_are_refused_by_name(tmp_path):
    params = init_params(MODEL, 0)
    attention = params["layers"]["attention"]
    attention["q_proj"]["kernel"] = attention["q_proj"]["kernel"].at[0, 0, 0].set(np.nan)
    config = SFTConfig(row_length=16, batch_rows=2, micro_rows=2, steps=1)
    with pytest.raises(
        NotFiniteError, match=r"SFT starts from: layers/attention/q_proj/kernel is not finite"
    ):
        train(config, MODEL, params, sequences(), tmp_path / "sft", MESH)
    assert not (tmp_path / "sft").exists()

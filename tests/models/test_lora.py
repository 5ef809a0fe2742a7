import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from adapters import merged

from mlagent_jax.errors import UserError
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.hf import load_hf, save_hf
from mlagent_jax.models.lora import LoRAConfig, join, partition
from mlagent_jax.models.qwen2 import abstract_params, forward, init_adapters, init_params
from mlagent_jax.parallel.mesh import MeshConfig, batch_sharding, make_mesh, param_shardings, put
from mlagent_jax.sft.config import SFTConfig
from mlagent_jax.sft.loop import train
from mlagent_jax.sft.step import compile_train_step
from mlagent_jax.text.chat import Encoded
from mlagent_jax.training.optimisers import OptimiserConfig, make_optimiser
from mlagent_jax.training.stage_checkpoints import load_params
from mlagent_jax.training.state import init_state, state_shardings

PLAIN = Qwen2Config(32, 16, 24, 2, 4, 2, initializer_range=0.3)
MODEL = PLAIN.replace(lora=LoRAConfig(rank=3, alpha=6.0, targets=("q_proj", "v_proj", "down_proj")))
TOKENS = np.arange(24, dtype=np.int32).reshape(2, 12)
RULE = OptimiserConfig(learning_rate=1e-2)
POSITIONS = np.broadcast_to(np.arange(12, dtype=np.int32), (2, 12))


def run(model, params):
    return jax.jit(lambda p: forward(model, p, TOKENS, POSITIONS, np.ones_like(TOKENS)))(params)


@pytest.fixture(scope="module")
def base():
    return init_params(PLAIN, 0)


@pytest.fixture(scope="module")
def adapters():
    """As after some training: B is no longer zero."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(np.float32) / 3, init_adapters(MODEL, 0)
    )


def test_only_the_targets_get_adapters(base):
    start = init_adapters(MODEL, 0)
    assert jax.tree.map(lambda leaf: leaf.shape, start) == {
        "layers": {
            "attention": {
                "q_proj": {"adapter": {"lora_a": (2, 16, 3), "lora_b": (2, 3, 16)}},
                "v_proj": {"adapter": {"lora_a": (2, 16, 3), "lora_b": (2, 3, 8)}},
            },
            "mlp": {"down_proj": {"adapter": {"lora_a": (2, 24, 3), "lora_b": (2, 3, 16)}}},
        }
    }
    whole = join(start, base)
    assert jax.tree.structure(whole) == jax.tree.structure(abstract_params(MODEL))
    assert jax.tree.structure(partition(whole)[1]) == jax.tree.structure(base)
    assert partition(base) == (base, {})


def test_fresh_adapters_change_nothing(base):
    np.testing.assert_array_equal(run(MODEL, join(init_adapters(MODEL, 0), base)), run(PLAIN, base))


def test_merged_equals_unmerged(base, adapters):
    whole = join(adapters, base)
    adapted = run(MODEL, whole)
    np.testing.assert_allclose(run(PLAIN, merged(MODEL.lora, whole)), adapted, atol=1e-5, rtol=1e-5)
    assert np.abs(adapted - run(PLAIN, base)).max() > 0.1


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"rank": 0}, "lora.rank is 0"),
        ({"targets": ("lm_head",)}, "'lm_head'"),
        ({"targets": ()}, "is empty"),
    ],
)
def test_bad_settings_are_refused(wrong, message):
    with pytest.raises(UserError, match=message):
        LoRAConfig(**wrong)


def test_a_step_changes_only_adapters_and_has_moments_only_for_them(base, adapters):
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    optimiser, shardings = make_optimiser(RULE, 1), param_shardings(MODEL, mesh)
    before = join(adapters, base)
    state = init_state(put(before, shardings), shardings, optimiser, mesh)
    layout = state_shardings(before, shardings, optimiser, mesh)
    moments = optax.tree.get_all_with_path(state.opt_state, "mu")
    assert [jax.tree.structure(mu) for _, mu in moments] == [jax.tree.structure(adapters)]

    rows = {"tokens": TOKENS, "targets": TOKENS, "positions": POSITIONS}
    rows |= {"segment_ids": np.ones_like(TOKENS), "action": np.ones(TOKENS.shape, bool)}
    batch = put({name: array[None] for name, array in rows.items()}, batch_sharding(mesh, leading=1))
    after, _ = compile_train_step(MODEL, optimiser, layout)(state, batch)
    trained, frozen = partition(after.params)
    jax.tree.map(np.testing.assert_array_equal, frozen, base)
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: (np.asarray(a) != b).any(), trained, adapters)))


def test_fine_tuning_keeps_the_frozen_weights_and_resumes(tmp_path, base):
    rng = np.random.default_rng(0)
    sequences = [
        Encoded(rng.integers(0, 32, n).astype(np.int32), np.arange(n) >= 3, ((3, int(n)),))
        for n in rng.integers(5, 12, 12)
    ]
    config = SFTConfig(16, 4, 4, steps=4, checkpoint_every=2, eval_fraction=0.0, optimiser=RULE)
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    frozen = MODEL.replace(param_dtype="bfloat16")
    start = jax.tree.map(lambda leaf: leaf.astype("bfloat16"), base)

    straight = train(config, frozen, start, sequences, tmp_path / "straight", mesh)
    train(dataclasses.replace(config, steps=2), frozen, start, sequences, tmp_path / "halves", mesh)
    resumed = train(config, frozen, start, sequences, tmp_path / "halves", mesh)
    jax.tree.map(np.testing.assert_array_equal, resumed, straight)
    read = load_params(tmp_path / "halves", frozen, mesh)
    jax.tree.map(np.testing.assert_array_equal, read, straight)

    trained, kept = partition(straight)
    jax.tree.map(np.testing.assert_array_equal, kept, start)
    assert all(np.asarray(leaf).any() for leaf in jax.tree.leaves(trained)), "B starts at zero"
    again = train(config, frozen, straight, sequences, tmp_path / "again", mesh)
    assert not np.array_equal(
        partition(again)[0]["layers"]["mlp"]["down_proj"]["adapter"]["lora_b"],
        trained["layers"]["mlp"]["down_proj"]["adapter"]["lora_b"],
    ), "existing adapters are trained further"


def test_exports_are_merged_in_float32(tmp_path, base, adapters, caplog):
    """A change smaller than a rounding of bfloat16 is not lost in the export."""
    frozen = MODEL.replace(param_dtype="bfloat16")
    start = jax.tree.map(lambda leaf: leaf.astype("bfloat16"), base)
    small = jax.tree.map(lambda leaf: leaf / 300, adapters)
    whole = join(small, start)
    save_hf(tmp_path / "hf", frozen, whole)
    config, exported = load_hf(tmp_path / "hf")
    assert config.param_dtype == "float32" and config.lora is None
    expected = merged(MODEL.lora, whole, "float32")
    for name in MODEL.lora.targets:
        part = "mlp" if name == "down_proj" else "attention"
        ours, exact, before = (
            np.asarray(tree["layers"][part][name]["kernel"], np.float64)
            for tree in (exported, expected, start)
        )
        a, b = (np.asarray(leaf, np.float64) for leaf in small["layers"][part][name]["adapter"].values())
        np.testing.assert_allclose(ours - before, 2.0 * a @ b, rtol=0, atol=1e-7)
        np.testing.assert_allclose(ours, exact, rtol=0, atol=1e-7)
        rounded = np.asarray(jnp.asarray(ours, jnp.bfloat16), np.float64)
        assert np.mean(rounded == before) > 0.9, "most of the change is smaller than a rounding of bfloat16"
    assert not caplog.records
    save_hf(tmp_path / "half", frozen, whole, dtype="bfloat16")
    assert "adapters are merged into bfloat16" in caplog.text

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlagent_jax.training.checkpoints import CheckpointError, Checkpoints

STATE = {"kernel": jnp.arange(6.0).reshape(2, 3), "step": jnp.int32(7)}


def abstract(tree):
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), tree)


def test_newest_are_kept_and_each_item_is_read_alone(tmp_path):
    with Checkpoints(tmp_path, ("params", "training"), keep=2) as checkpoints:
        assert checkpoints.latest() is None
        for step in (1, 2, 3):
            checkpoints.save(step, params={"w": STATE["kernel"] + step}, training=STATE)
    with Checkpoints(tmp_path, ("params", "training")) as checkpoints:
        assert checkpoints.latest() == 3
        params = checkpoints.restore(params=abstract({"w": STATE["kernel"]}))["params"]
        np.testing.assert_array_equal(params["w"], STATE["kernel"] + 3)
        assert int(checkpoints.restore(2, training=STATE)["training"]["step"]) == 7
        with pytest.raises(CheckpointError, match="no checkpoint of step 1 in"):
            checkpoints.restore(1, training=STATE)


def test_absence_and_other_shapes_are_one_clear_sentence(tmp_path):
    with Checkpoints(tmp_path, ("params",)) as checkpoints:
        with pytest.raises(CheckpointError, match=r"no checkpoint in .*: run the stage that writes it first"):
            checkpoints.restore(params=STATE)
        checkpoints.save(1, params=STATE)
        wider = {"kernel": jnp.zeros((2, 4)), "step": jnp.int32(0)}
        with pytest.raises(
            CheckpointError, match=r"params/kernel is \(2, 3\) there, but \(2, 4\) is configured"
        ):
            checkpoints.restore(params=wider)
        with pytest.raises(CheckpointError, match=r"params/step is \(\) there, but absent is configured"):
            checkpoints.restore(params={"kernel": STATE["kernel"]})


def test_a_half_written_checkpoint_does_not_count(tmp_path):
    with Checkpoints(tmp_path, ("params",)) as checkpoints:
        checkpoints.save(1, params=STATE)
    # What orbax writes into before its atomic rename.
    (tmp_path / "2.orbax-checkpoint-tmp" / "params").mkdir(parents=True)
    with Checkpoints(tmp_path, ("params",)) as checkpoints:
        assert checkpoints.latest() == 1

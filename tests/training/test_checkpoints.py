import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlagent_jax.finite import NotFiniteError
from mlagent_jax.training.checkpoints import CheckpointError, Checkpoints, DamagedCheckpointError

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


def test_absence_and_other_shapes_give_one_clear_error(tmp_path):
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


def files(folder):
    """The largest first."""
    return sorted((p for p in folder.rglob("*") if p.is_file()), key=lambda p: -p.stat().st_size)


def cut_in_half(newest):
    largest = files(newest)[0]
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])


def empty(newest):
    shutil.rmtree(newest)
    newest.mkdir()


def empty_item(newest):
    shutil.rmtree(newest / "params")
    (newest / "params").mkdir()


DAMAGE = {
    "the largest file cut in half": cut_in_half,
    "the largest file gone": lambda newest: files(newest)[0].unlink(),
    "training gone": lambda newest: shutil.rmtree(newest / "training"),
    "metadata torn": lambda newest: (newest / "params" / "_METADATA").write_text('{"tree_'),
    "manifest overwritten": lambda newest: next(newest.rglob("manifest.ocdbt")).write_bytes(b"xx"),
    "an empty folder": empty,
    "an empty item": empty_item,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_named_and_training_resumes_from_the_intact_one(damage, tmp_path, caplog):
    folder = tmp_path / "sft" / "checkpoints"
    params = {"w": jax.random.normal(jax.random.key(0), (64, 64))}
    with Checkpoints(folder, ("params", "training")) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, params=jax.tree.map(lambda w, s=step: w + s, params), training=STATE)
    DAMAGE[damage](folder / "2")
    (tmp_path / "sft" / "done.json").write_text("{}")
    with Checkpoints(folder, ("params", "training")) as checkpoints:
        # A later stage would silently lose training, so it gets an error that says how to repair the checkpoint.
        with pytest.raises(DamagedCheckpointError) as error:
            checkpoints.restore(params=params, training=STATE)
        assert f"checkpoint {folder / '2'} is damaged" in str(error.value)
        assert f"delete that folder and {tmp_path / 'sft' / 'done.json'}, then run" in str(error.value)
        # Training itself loses only the steps since then, with a warning.
        step, items = checkpoints.resume(params=params, training=STATE)
        assert step == 1
        np.testing.assert_array_equal(items["params"]["w"], params["w"] + 1)
        assert f"checkpoint {folder / '2'} is damaged" in caplog.text
        assert f"moved to {folder}.damaged, resuming from step 1" in caplog.text
        checkpoints.save(2, params=params, training=STATE)
    with Checkpoints(folder, ("params", "training")) as checkpoints:
        assert checkpoints.resume(params=params, training=STATE)[0] == 2


def test_if_no_checkpoint_is_intact_the_error_says_so_and_nothing_moves(tmp_path):
    with Checkpoints(tmp_path, ("params",)) as checkpoints:
        assert checkpoints.resume(params=STATE) is None
        checkpoints.save(1, params=STATE)
    shutil.rmtree(tmp_path / "1" / "params")
    with (
        Checkpoints(tmp_path, ("params",)) as checkpoints,
        pytest.raises(
            CheckpointError, match=f"none of the checkpoints in {re.escape(str(tmp_path))} is intact"
        ),
    ):
        checkpoints.resume(params=STATE)
    assert (tmp_path / "1").is_dir()


def test_a_checkpoint_of_another_model_does_not_count_as_damaged(tmp_path):
    with Checkpoints(tmp_path, ("params",)) as checkpoints:
        checkpoints.save(1, params=STATE)
        with pytest.raises(CheckpointError, match="is of another model or optimiser") as error:
            checkpoints.resume(params={"kernel": jnp.zeros((2, 4)), "step": jnp.int32(0)})
        assert not isinstance(error.value, DamagedCheckpointError)


def test_a_state_that_is_not_finite_is_not_saved_and_replaces_nothing(tmp_path):
    poisoned = {"kernel": STATE["kernel"].at[1, 2].set(jnp.inf), "step": jnp.int32(8)}
    with Checkpoints(tmp_path, ("params",), keep=1) as checkpoints:
        checkpoints.save(1, params=STATE)
        with pytest.raises(
            NotFiniteError, match=r"checkpoint 2 of .* was not written.*params: kernel is not finite"
        ):
            checkpoints.save(2, params=poisoned)
        assert checkpoints.latest() == 1
        np.testing.assert_array_equal(checkpoints.restore(params=STATE)["params"]["kernel"], STATE["kernel"])


def test_a_checkpoint_of_an_older_version_that_is_not_finite_is_refused(tmp_path, monkeypatch):
    poisoned = {"kernel": STATE["kernel"].at[1, 2].set(jnp.nan), "step": jnp.int32(8)}
    with Checkpoints(tmp_path, ("params",)) as checkpoints:
        with monkeypatch.context() as unguarded:
            unguarded.setattr("mlagent_jax.training.checkpoints.require_finite", lambda *_: None)
            checkpoints.save(1, params=STATE)
            checkpoints.save(2, params=poisoned)
        with pytest.raises(DamagedCheckpointError, match="params: kernel is not finite"):
            checkpoints.restore(params=STATE)
        assert checkpoints.resume(params=STATE)[0] == 1

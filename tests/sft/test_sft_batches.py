"""A step has `batch_sequences` trajectories, like the paper's batch, or `batch_rows` rows."""

import json
from dataclasses import replace

import numpy as np
import pytest

from mlagent_jax.errors import UserError
from mlagent_jax.models.config import Qwen2Config
from mlagent_jax.models.qwen2 import init_params
from mlagent_jax.parallel.mesh import MeshConfig, make_mesh
from mlagent_jax.sft.batches import cut_counts, make_batches
from mlagent_jax.sft.config import SFTConfig
from mlagent_jax.sft.loop import train
from mlagent_jax.text.chat import Encoded

CONFIG = SFTConfig(row_length=16, batch_sequences=4, micro_rows=2, epochs=2.0, eval_fraction=0.0)


def sequences(count=12, seed=0):
    """The first token of each is its number, so that tests can find it in the rows."""
    rng = np.random.default_rng(seed)
    out = []
    for number, length in enumerate(rng.integers(5, 15, count).tolist()):
        tokens = np.array([number, *rng.integers(0, 30, length - 1)], np.int32)
        out.append(Encoded(tokens, np.arange(length) >= 4, ((4, length),)))
    return out


def members(rows):
    return sorted(rows["tokens"][(rows["positions"] == 0) & (rows["segment_ids"] > 0)].tolist())


def test_every_step_has_its_trajectories_and_every_epoch_has_all():
    batches, held_out = make_batches(CONFIG, sequences())
    assert held_out is None and batches.per_epoch == 3
    steps = [batches.rows(step) for step in range(6)]
    assert [len(members(rows)) for rows in steps] == [4] * 6
    for epoch in (steps[:3], steps[3:]):
        assert sorted(number for rows in epoch for number in members(rows)) == list(range(12))
    assert len({rows["tokens"].shape for rows in steps}) == 1 and len(steps[0]["tokens"]) % 2 == 0
    assert members(steps[0]) != members(steps[3])
    again, _ = make_batches(CONFIG, sequences())
    np.testing.assert_array_equal(again.rows(4)["tokens"], steps[4]["tokens"])  # as a resumed run needs it
    assert batches.tokens(1, 3) == sum(int((rows["segment_ids"] > 0).sum()) for rows in steps[1:3])


@pytest.mark.parametrize("batch_sequences", [0, 4])
def test_paraphrases_are_trained_on_unless_their_trajectory_is_held_out(batch_sequences):
    config = SFTConfig(
        row_length=16, batch_rows=2, batch_sequences=batch_sequences, micro_rows=2, eval_fraction=0.25
    )
    given = sequences()
    copies = [[replace(one, tokens=one.tokens + 30 * copy) for copy in (1, 2)] for one in given]
    batches, held_out = make_batches(config, given, copies)
    steps = round(batches.per_epoch * (1 if batch_sequences else 2))
    seen = {number for step in range(steps) for number in members(batches.rows(step))}
    assert held_out is not None
    tested = set(members(held_out.take(np.arange(len(held_out.tokens)))))
    assert len(tested) == 3
    assert seen == {number + 30 * copy for number in set(range(12)) - tested for copy in range(3)}


def test_rows_of_several_trajectories_make_larger_batches():
    batches, _ = make_batches(
        SFTConfig(row_length=64, batch_rows=2, micro_rows=2, eval_fraction=0.0), sequences()
    )
    assert len(members(batches.rows(0))) > 4


def test_training_counts_the_action_tokens_of_its_trajectories(tmp_path):
    model = Qwen2Config(30, 16, 24, 1, 2, 1)
    config = SFTConfig(row_length=16, batch_sequences=4, micro_rows=2, steps=2, eval_fraction=0.0)
    train(config, model, init_params(model, 0), sequences(), tmp_path, make_mesh(MeshConfig()))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    batches, _ = make_batches(config, sequences())
    lengths = {number: len(sequence.tokens) - 4 for number, sequence in enumerate(sequences())}
    for step, line in enumerate(lines):
        assert line["train/action_tokens"] == sum(lengths[number] for number in members(batches.rows(step)))


def test_cut_trajectories_are_counted(caplog):
    long = Encoded(np.zeros(30, np.int32), np.ones(30, bool), ((2, 8), (20, 30)))
    hopeless = Encoded(np.zeros(30, np.int32), np.ones(30, bool), ((20, 30),))
    assert cut_counts([*sequences(), long, hopeless], 16) == (2, 1)
    make_batches(CONFIG, [*sequences(), long, hopeless])
    assert (
        "2 of 14 trajectories are longer than sft.row_length 16 and are cut at a step; 1 of these have no action left"
        in caplog.text
    )


@pytest.mark.parametrize("batch_sequences", [0, 2])
def test_held_out_trajectories_without_an_action_give_no_evaluation_loss(batch_sequences, caplog):
    config = SFTConfig(
        row_length=16, batch_sequences=batch_sequences, batch_rows=2, micro_rows=2, eval_fraction=0.3
    )
    _, rows = make_batches(config, sequences())
    held_out = np.random.default_rng([config.seed, 0]).permutation(12)[:4]
    hopeless = Encoded(np.zeros(30, np.int32), np.ones(30, bool), ((20, 30),))
    mixed = [hopeless if i in held_out else sequence for i, sequence in enumerate(sequences())]
    assert rows is not None and make_batches(config, mixed)[1] is None
    assert (
        "4 of 12 trajectories are longer than sft.row_length 16 and are cut at a step; 4 of these have no action left"
        in caplog.text
    )
    assert "no evaluation loss: none of the 4 held-out trajectories has an action" in caplog.text


def test_the_evaluation_loss_does_not_depend_on_log_every(tmp_path):
    model = Qwen2Config(30, 16, 24, 1, 2, 1)
    config = SFTConfig(
        row_length=16, batch_rows=2, micro_rows=2, steps=5, eval_fraction=0.2, eval_every=2, log_every=3
    )
    train(config, model, init_params(model, 0), sequences(), tmp_path, make_mesh(MeshConfig()))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], "val/loss" in line) for line in lines] == [
        (2, True),
        (3, False),
        (4, True),
        (5, True),
    ]


def test_a_negative_number_is_refused():
    with pytest.raises(UserError, match=r"sft\.batch_sequences is -1"):
        SFTConfig(batch_sequences=-1).validate()

"""Rollouts packed into rows, minibatch by minibatch, with what an update needs for each token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Shaped

from mlagent_jax.ppo.config import PPOConfig
from mlagent_jax.ppo.losses import token_weights
from mlagent_jax.ppo.rollout import Rollout
from mlagent_jax.text.chat import Encoded
from mlagent_jax.text.packing import PackedRows, pack, pad_rows

# Of any number of rows: a batch, a minibatch and a micro-batch meet in the same call.
Arrays = dict[str, Shaped[np.ndarray, "_B T"]]


@dataclass(frozen=True)
class PPOBatch:
    """The rows of one update.

    arrays: [B,T] each, aligned with the position that predicts a token (see `text.packing`). tokens, targets,
        segment_ids and positions, int32. mask, bool: action tokens that are trained on. dones, bool: action tokens
        after which no further reward counts. rewards, float32, at each action's last token. sampler_logprobs, float32.
        weights, float32: of each token in its minibatch's loss.
    minibatches: [start, stop) of each minibatch's rows.
    """

    arrays: Arrays
    minibatches: tuple[tuple[int, int], ...]


def make_batch(config: PPOConfig, rollouts: Sequence[Rollout], update: int) -> PPOBatch:
    """Shuffles the rollouts (by seed and update), splits them into minibatches and packs each into rows of its own.

    Raises ValueError for a rollout longer than `row_length`: cutting it would lose its reward.
    """
    longest = max(len(rollout.tokens) for rollout in rollouts)
    if longest > config.row_length:
        raise ValueError(f"a rollout has {longest} tokens, more than ppo.row_length {config.row_length}")
    order = np.random.default_rng([config.seed, 5, update]).permutation(len(rollouts))
    parts, ranges, start = [], [], 0
    for first in range(0, len(order), config.minibatch_size):
        members = [rollouts[i] for i in order[first : first + config.minibatch_size]]
        part = _pack_minibatch(config, members)
        parts.append(part)
        ranges.append((start, start + len(part["tokens"])))
        start = ranges[-1][1]
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return PPOBatch(arrays, tuple(ranges))


def _pack_minibatch(config: PPOConfig, rollouts: Sequence[Rollout]) -> Arrays:
    packed = pad_rows(pack([_encoded(rollout) for rollout in rollouts], config.row_length), config.micro_rows)
    shape = packed.tokens.shape
    mask, dones = np.zeros(shape, bool), np.zeros(shape, bool)
    # Rewards are floats from here to the loss: an integer array would turn 0.7 into 0.
    rewards, sampler_logprobs = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    lengths = np.zeros(shape, np.int32)
    for rollout, place in zip(rollouts, packed.placements, strict=True):
        last = None
        for action in rollout.actions:
            # Token j of a sequence is predicted at its position j - 1.
            start, end = action.response_range
            where = slice(place.start + start - 1, place.start + end - 1)
            sampler_logprobs[place.row, where] = action.logprobs
            if action.reward is None:
                continue
            mask[place.row, where] = True
            lengths[place.row, where] = end - start
            rewards[place.row, where.stop - 1] = action.reward
            last = where.stop - 1
            dones[place.row, last] = not config.reward_to_go
        if last is not None:
            dones[place.row, last] = True
    return _row_arrays(packed) | {
        "mask": mask,
        "dones": dones,
        "rewards": rewards,
        "sampler_logprobs": sampler_logprobs,
        "weights": token_weights(mask, lengths, config.aggregation),
    }


def _row_arrays(packed: PackedRows) -> Arrays:
    arrays = packed.take(np.arange(len(packed.tokens)))
    del arrays["action"]
    return arrays


def _encoded(rollout: Rollout) -> Encoded:
    action = np.zeros(len(rollout.tokens), bool)
    ranges = tuple(sample.response_range for sample in rollout.actions)
    for start, end in ranges:
        action[start:end] = True
    return Encoded(rollout.tokens, action, ranges)

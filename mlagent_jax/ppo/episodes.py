"""The episode-wise baseline: whole episodes from the task description, every action of them learnt from.

This is what the paper's step-wise RL is compared with (arXiv 2505.23723, section 5.3).
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from mlagent_jax.agent.episode import EpisodeRequest, Stepper, run_episodes
from mlagent_jax.agent.model_policy import ModelPolicy
from mlagent_jax.agent.policy import Situation
from mlagent_jax.agent.prompt import messages
from mlagent_jax.agent.trajectory import Trajectory
from mlagent_jax.ppo.rollout import Collected, Rollout, action_record, action_sample
from mlagent_jax.text.chat import encode_chat


class EpisodeCollector:
    """`count` episodes an update, the tasks taken in turn, `parallel` at a time."""

    def __init__(self, tasks: Sequence[str], stepper: Stepper, parallel: int = 8):
        self._tasks = tuple(tasks)
        self._stepper = stepper
        self._parallel = parallel

    def collect(self, policy: ModelPolicy, count: int, seed: int, update: int) -> Collected:
        seeds = np.random.SeedSequence([seed, 6, update]).generate_state(count)
        first = count * update
        requests = [
            EpisodeRequest(self._tasks[index % len(self._tasks)], index, int(episode_seed))
            for index, episode_seed in zip(range(first, first + count), seeds, strict=True)
        ]
        began = time.monotonic()
        episodes = sorted(
            run_episodes(policy, requests, self._stepper, self._parallel), key=lambda episode: episode.index
        )
        # Generation and environment take turns in there and are not told apart.
        seconds = {"generate": 0.0, "environment": time.monotonic() - began}
        episodes = [episode for episode in episodes if episode.steps]
        records = [
            action_record(episode.key, episode.task, index, episode.seed, step)
            for episode in episodes
            for index, step in enumerate(episode.steps)
        ]
        return Collected([self._rollout(policy, episode) for episode in episodes], records, seconds)

    def _rollout(self, policy: ModelPolicy, episode: Trajectory) -> Rollout:
        task = self._stepper.environments[episode.task].task
        chat = messages(policy.form, Situation(task, episode.steps))
        encoded = encode_chat(policy.tokenizer, chat)
        actions = tuple(
            action_sample(policy, step, start)
            for step, (start, _) in zip(episode.steps, encoded.spans, strict=True)
        )
        # What comes after the last action explains nothing any more.
        return Rollout(encoded.tokens[: actions[-1].span[1]], actions)

"""The episode-wise baseline: whole episodes from the task description, with every action trained on.

The paper compares its step-wise RL with this (arXiv 2505.23723, section 5.3). An episode that an infrastructure failure
ends early is run again. If it fails again, none of it is trained on, since its remaining rewards are unknown.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
from absl import logging

from mlagent_jax.agent.env_runner import EnvRunner
from mlagent_jax.agent.episode import EpisodeRequest, run_episodes
from mlagent_jax.agent.model_policy import ModelPolicy
from mlagent_jax.agent.policy import Situation
from mlagent_jax.agent.prompt import messages
from mlagent_jax.agent.trajectory import Trajectory
from mlagent_jax.ppo.rollout import Rollout, RolloutBatch, action_record, action_sample
from mlagent_jax.text.chat import encode_chat


class EpisodeCollector:
    """Runs `count` episodes for an update, `parallel` at a time, taking the tasks in turn.

    retries: further attempts at an episode that an infrastructure failure ended early. An episode that succeeds on a
    retry is the one that there would have been without the failure.
    """

    def __init__(self, tasks: Sequence[str], env_runner: EnvRunner, parallel: int = 8, retries: int = 1):
        self._tasks = tuple(tasks)
        self._env_runner = env_runner
        self._parallel = parallel
        self._retries = retries

    def collect(self, policy: ModelPolicy, count: int, seed: int, update: int) -> RolloutBatch:
        seeds = np.random.SeedSequence([seed, 6, update]).generate_state(count)
        first = count * update
        requests = [
            EpisodeRequest(self._tasks[index % len(self._tasks)], index, int(episode_seed))
            for index, episode_seed in zip(range(first, first + count), seeds, strict=True)
        ]
        began = time.monotonic()
        episodes, repeated = self._run(policy, requests)
        # Includes the environment's time: generation and environment alternate and are not timed separately.
        seconds = {"gen": time.monotonic() - began}
        whole = [episode for episode in episodes if not episode.is_masked]
        counts = {
            "rollout/episodes": len(episodes),
            "rollout/masked_episodes": len(episodes) - len(whole),
            "rollout/repeated_episodes": repeated,
            "rollout/episodes_without_room": sum(not episode.steps for episode in whole),
        }
        if counts["rollout/masked_episodes"]:
            logging.warning(
                "PPO update %d: %d of %d episodes were ended early by infrastructure failures, also when repeated; "
                "they are not trained on",
                update + 1,
                counts["rollout/masked_episodes"],
                len(episodes),
            )
        if counts["rollout/episodes_without_room"]:
            logging.warning(
                "PPO update %d: %d of %d episodes have no step, because the first prompt leaves no room for a response",
                update + 1,
                counts["rollout/episodes_without_room"],
                len(episodes),
            )
        records = [record for episode in episodes for record in _records(episode)]
        rollouts = [self._rollout(policy, episode) for episode in whole if episode.steps]
        return RolloutBatch(rollouts, records, seconds, counts)

    def _run(self, policy: ModelPolicy, requests: Sequence[EpisodeRequest]) -> tuple[list[Trajectory], int]:
        """The episodes, ordered by index, and how many of them were repeated."""
        pending, finished, repeated = list(requests), dict[int, Trajectory](), set[int]()
        for _ in range(1 + self._retries):
            with closing(run_episodes(policy, pending, self._env_runner, self._parallel)) as episodes:
                finished |= {episode.index: episode for episode in episodes}
            pending = [request for request in pending if finished[request.index].is_masked]
            if not pending:
                break
            repeated |= {request.index for request in pending}
        return [finished[index] for index in sorted(finished)], len(repeated)

    def _rollout(self, policy: ModelPolicy, episode: Trajectory) -> Rollout:
        task = self._env_runner.environments[episode.task].task
        chat = messages(policy.form, Situation(task, episode.steps))
        encoded = encode_chat(policy.tokenizer, chat)
        actions = tuple(
            action_sample(policy, step, start)
            for step, (start, _) in zip(episode.steps, encoded.response_ranges, strict=True)
        )
        # No later token has a loss.
        return Rollout(encoded.tokens[: actions[-1].response_range[1]], actions)


def _records(episode: Trajectory) -> list[dict[str, Any]]:
    """One record for each action; without rewards if the episode is masked, since none was trained on."""
    steps = [replace(step, reward=None) for step in episode.steps] if episode.is_masked else episode.steps
    return [
        action_record(episode.key, episode.task, index, episode.seed, step)
        for index, step in enumerate(steps)
    ]

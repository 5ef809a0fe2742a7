"""Evaluation along training: when it is due, with the weights of then. Whole runs with it are a slow test of stages."""

from __future__ import annotations

from mlagent_jax.ppo.periodic_evaluation import PeriodicEvaluation


class FakeEngine:
    """Holds weights as an engine does, and runs what it is given."""

    def __init__(self):
        self.holds, self.log = None, []

    def load(self, params):
        self.holds = params

    def unload(self):
        self.holds = None

    def on_main(self, work):
        return work()


def test_it_evaluates_the_weights_of_every_nth_update_of_the_start_and_of_the_end():
    engine = FakeEngine()
    evaluation = PeriodicEvaluation(3, lambda update: engine.log.append((update, engine.holds)))
    for update in range(8):
        evaluation.at(update, engine, f"weights {update}")
        assert engine.holds is None
    assert engine.log == [(0, "weights 0"), (3, "weights 3"), (6, "weights 6")]
    evaluation.at(8, engine, "weights 8", is_last=True)
    assert engine.log[-1] == (8, "weights 8") and engine.holds is None

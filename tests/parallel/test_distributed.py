import jax
import pytest

from mlagent_jax.errors import UserError
from mlagent_jax.parallel import distributed


@pytest.fixture
def joined(monkeypatch):
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *args: calls.append(args))
    return calls


def test_one_process_by_default(joined):
    assert distributed.initialize(environment={}) == "single"
    assert distributed.initialize(environment={"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}) == "single"
    assert distributed.initialize(environment={"TPU_WORKER_HOSTNAMES": "localhost"}) == "single"
    assert joined == []
    assert distributed.is_main() and distributed.broadcast([1]) == [1] and distributed.on_main(lambda: 2) == 2


def test_arguments_before_environment_before_slurm(joined):
    environment = {"MLAGENT_COORDINATOR": "a:1", "MLAGENT_PROCESSES": "4", "MLAGENT_PROCESS_ID": "3"}
    environment |= {"SLURM_NTASKS": "2", "SLURM_PROCID": "1"}
    assert distributed.initialize(environment=environment) == "explicit"
    assert distributed.initialize("b:2", 2, 0, environment) == "explicit"
    assert joined == [("a:1", 4, 3), ("b:2", 2, 0)]


def test_schedulers_are_recognised(joined):
    assert distributed.initialize(environment={"SLURM_NTASKS": "2", "SLURM_PROCID": "1"}) == "slurm"
    assert distributed.initialize(environment={"TPU_WORKER_HOSTNAMES": "t0,t1"}) == "tpu"
    assert joined == [(), ()]


JOBSET = {
    "JOBSET_NAME": "run",
    "REPLICATED_JOB_NAME": "worker",
    "NNODES": "16",
    "JOB_COMPLETION_INDEX": "3",
}


def test_pods_of_a_jobset_find_the_first_one(joined):
    assert distributed.initialize(environment=JOBSET) == "gke"
    assert joined == [("run-worker-0-0.run:8476", 16, 3)]
    assert distributed.initialize(environment=JOBSET | {"NNODES": "1", "JOB_COMPLETION_INDEX": "0"}) == "gke"
    # On GKE, a TPU pod itself lists its members.
    assert distributed.initialize(environment=JOBSET | {"TPU_WORKER_HOSTNAMES": "t0,t1"}) == "tpu"
    assert joined[1:] == [()]


@pytest.mark.parametrize(
    "environment, message",
    [
        ({"JOBSET_NAME": "run"}, "REPLICATED_JOB_NAME, NNODES, JOB_COMPLETION_INDEX is not set"),
        (JOBSET | {"NNODES": "3"}, "JOB_COMPLETION_INDEX is 3 and NNODES 3, but the index must be below"),
        ({"MLAGENT_PROCESSES": "2"}, "coordinator '', processes 2 and process id -1 do not define a run"),
        (
            {"MLAGENT_COORDINATOR": "a:1", "MLAGENT_PROCESSES": "2", "MLAGENT_PROCESS_ID": "2"},
            "process id 2 do not define a run",
        ),
        ({"MLAGENT_PROCESSES": "two"}, "MLAGENT_PROCESSES is 'two', but must be a whole number"),
    ],
)
def test_incomplete_or_contradictory_settings_are_refused(environment, message, joined):
    with pytest.raises(UserError, match=message):
        distributed.initialize(environment=environment)
    assert joined == []

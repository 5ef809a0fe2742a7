"""Launchers, with a probe in place of the experiment: it joins the run as that does and says what it sees."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlagent_jax.parallel import distributed

ROOT = Path(__file__).parents[2]
LAUNCHERS = [
    ROOT / "launch/local/run.sh",
    ROOT / "launch/slurm/run.sbatch",
    ROOT / "launch/tpu/run.sh",
    ROOT / "launch/ray/run.sh",
]

PROBE = """
import json, os, sys, time
from pathlib import Path

assert sys.argv[1:3] == ["-m", "experiments.run"], sys.argv
flags = dict(argument.removeprefix("--").split("=", 1) for argument in sys.argv[3:])
process = flags.get("process_id", os.environ.get("SLURM_PROCID", "0"))
folder = Path(flags["workdir"])
(folder / f"pid{process}").write_text(str(os.getpid()))
if flags.get("behaviour") == "fail" and process == "1":
    sys.exit(7)
if flags.get("behaviour") in ("fail", "hang"):
    time.sleep(60)
if flags.get("behaviour") == "ray":
    import ray

    ray.init(flags["config.sandbox.ray_address"], _node_ip_address="127.0.0.2", log_to_driver=False)
    while len(ray.nodes()) < 2:
        time.sleep(0.2)
    (folder / "nodes.json").write_text(json.dumps([node["NodeManagerAddress"] for node in ray.nodes()]))
    sys.exit()
from mlagent_jax.parallel import distributed

kind = distributed.initialize(
    flags.get("coordinator_address", ""), int(flags.get("num_processes", 0)), int(flags.get("process_id", -1))
)
import jax

told = distributed.broadcast(flags["note"] if distributed.is_main() else None)
process, count = jax.process_index(), jax.process_count()
seen = {"kind": kind, "process": process, "count": count, "flags": flags, "told": told}
(folder / f"seen{process}.json").write_text(json.dumps(seen))
"""

NOTE = "two words, a 'quote', $HOME and *"


@pytest.fixture
def environment(tmp_path) -> dict[str, str]:
    """Variables for a launcher: an interpreter that runs the probe instead of a module, and a CPU only."""
    probe = tmp_path / "probe.py"
    probe.write_text(PROBE)
    python = tmp_path / "python"
    real = shlex.quote(sys.executable)
    python.write_text(
        f'#!/bin/sh\n[ "$1" = -c ] && exec {real} "$@"\n[ "$2" = ray.scripts.scripts ] && exec {real} "$@"\n'
        f'exec {real} {shlex.quote(str(probe))} "$@"\n'
    )
    python.chmod(0o755)
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SLURM_", "MLAGENT_", "TPU_"))
    }
    return kept | {"PYTHON": str(python), "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}


def seen_by(folder: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("seen*.json"))]


def is_alive(pid: int) -> bool:
    """Whether the process runs; a zombie, dead but not yet reaped by its parent, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition, seconds: float = 30.0) -> bool:
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.05)
    return condition()


@pytest.mark.parametrize("launcher", LAUNCHERS, ids=lambda path: path.parent.name)
def test_launchers_are_correct_shell(launcher) -> None:
    subprocess.run(["bash", "-n", launcher], check=True)
    assert os.access(launcher, os.X_OK)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", launcher], check=True)


def test_two_local_processes_become_one_run(tmp_path, environment) -> None:
    arguments = [f"--workdir={tmp_path}", f"--note={NOTE}"]
    subprocess.run([LAUNCHERS[0], "2", *arguments], env=environment, check=True, timeout=120)
    first, second = seen_by(tmp_path)
    assert (first["process"], second["process"]) == (0, 1)
    assert first["count"] == second["count"] == 2
    assert first["told"] == second["told"] == NOTE
    assert first["kind"] == "explicit"


def test_one_failing_process_ends_the_others(tmp_path, environment) -> None:
    arguments = [f"--workdir={tmp_path}", "--behaviour=fail"]
    done = subprocess.run(
        [LAUNCHERS[0], "3", *arguments], env=environment, timeout=60, capture_output=True, text=True
    )
    assert done.returncode == 7
    assert "A process ended with status 7" in done.stderr
    # A process that was ended while it wrote its file leaves it empty.
    pids = [int(text) for path in tmp_path.glob("pid*") if (text := path.read_text())]
    assert pids
    assert not any(map(is_alive, pids))


def test_an_interrupt_ends_all_processes(tmp_path, environment) -> None:
    arguments = [f"--workdir={tmp_path}", "--behaviour=hang"]
    launcher = subprocess.Popen(
        [LAUNCHERS[0], "2", *arguments],
        env=environment,
        start_new_session=True,
        # Bash cannot trap a signal that it inherits as ignored, as in a background job of another script.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    started = wait_until(lambda: len([path for path in tmp_path.glob("pid*") if path.read_text()]) == 2)
    launcher.send_signal(signal.SIGINT)
    assert launcher.wait(timeout=30) == 130
    assert started
    pids = [int(path.read_text()) for path in tmp_path.glob("pid*")]
    assert len(pids) == 2
    assert wait_until(lambda: not any(map(is_alive, pids)))


@pytest.mark.parametrize("arguments", [[], ["two", "--workdir=x"], ["0"]])
def test_local_usage(arguments, environment) -> None:
    done = subprocess.run([LAUNCHERS[0], *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: launch/local/run.sh")


def test_slurm_processes_find_each_other(tmp_path, environment) -> None:
    """With an `srun` that starts two local tasks and sets what SLURM sets; JAX's detection does the rest."""
    srun = tmp_path / "srun"
    srun.write_text(
        "#!/bin/bash\n"
        "[[ $1 == --kill-on-bad-exit=1 ]] || exit 9\nshift\n"
        'for id in 0 1; do SLURM_PROCID=$id SLURM_LOCALID=$id "$@" & done\n'
        "wait -n && wait -n\n"
    )
    srun.chmod(0o755)
    job = {
        "SLURM_SUBMIT_DIR": str(ROOT),
        "SLURM_JOB_ID": str(os.getpid()),  # JAX derives the port from it
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "2",
        "SLURM_STEP_NUM_TASKS": "2",
        "PATH": f"{tmp_path}:{environment['PATH']}",
    }
    arguments = [f"--workdir={tmp_path}", f"--note={NOTE}"]
    subprocess.run([LAUNCHERS[1], *arguments], env=environment | job, check=True, timeout=120, cwd=tmp_path)
    first, second = seen_by(tmp_path)
    assert (first["process"], second["process"], first["count"]) == (0, 1, 2)
    assert first["kind"] == second["kind"] == "slurm"
    assert second["told"] == NOTE


def test_slurm_refuses_another_folder(tmp_path, environment) -> None:
    job = {"SLURM_SUBMIT_DIR": str(tmp_path)}
    done = subprocess.run([LAUNCHERS[1]], env=environment | job, capture_output=True, text=True)
    assert done.returncode == 2
    assert "is not the repository's root" in done.stderr


@pytest.mark.skipif(
    not (ROOT / ".git").exists(), reason="the TPU launcher copies a git tree, and this is none"
)
def test_tpu_workers_get_the_tree_and_the_same_arguments(tmp_path, environment) -> None:
    """With a `gcloud` that copies to, and runs commands in, the home of one local worker."""
    worker = tmp_path / "worker"
    (worker / "bin").mkdir(parents=True)
    gcloud = tmp_path / "gcloud"
    gcloud.write_text(
        "#!/bin/bash\nset -eu\n"
        f"cd {shlex.quote(str(worker))}\n"
        '[[ "$1 $2 $3" == "compute tpus tpu-vm" ]]\n'
        '[[ " $* " == *" --zone=us-east1-d "* && " $* " == *" --worker=all"* ]]\n'
        "case $4 in\n"
        '  scp) [[ $6 == pod:* ]]; cp "$5" "${6#pod:}" ;;\n'
        '  ssh) [[ $5 == pod ]]; command=${!#}; exec bash -c "${command#--command=}" ;;\n'
        "esac\n"
    )
    gcloud.chmod(0o755)
    # Stands for `python -m venv .venv`: makes an environment whose pip takes notes and whose python probes.
    maker = tmp_path / "make-environment"
    maker.write_text(
        '#!/bin/bash\nset -eu\n[[ "$*" == "-m venv .venv" ]]\nmkdir -p .venv/bin\n'
        f"cp {shlex.quote(environment['PYTHON'])} .venv/bin/python\n"
        "printf '#!/bin/sh\\necho \"$@\" > pip-arguments\\n' > .venv/bin/pip\nchmod +x .venv/bin/pip\n"
    )
    maker.chmod(0o755)
    arguments = ["pod", "us-east1-d", f"--workdir={tmp_path}", f"--note={NOTE}"]
    variables = environment | {"PATH": f"{tmp_path}:{environment['PATH']}", "PYTHON": str(maker)}
    for _ in range(2):  # the second call finds the environment
        subprocess.run([LAUNCHERS[2], *arguments], env=variables, check=True, timeout=120)
    (seen,) = seen_by(tmp_path)
    assert seen["flags"]["note"] == NOTE
    assert (worker / "mlagent-jax" / "pyproject.toml").exists()
    assert "jax[tpu]" in (worker / "mlagent-jax" / "pip-arguments").read_text()
    shutil.rmtree(worker)


def test_tpu_usage(environment) -> None:
    done = subprocess.run([LAUNCHERS[2], "--config=x"], env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: launch/tpu/run.sh")


@pytest.mark.skipif(
    "ray" not in os.environ.get("MLAGENT_REQUIRE", ""), reason="starts a Ray cluster; set MLAGENT_REQUIRE=ray"
)
def test_a_ray_cluster_lives_as_long_as_the_run(tmp_path, environment) -> None:
    """With an `ssh` that runs the command here, as a node at another loopback address."""
    ssh = tmp_path / "ssh"
    ssh.write_text(
        '#!/bin/bash\n[[ "$1 $2 $3" == "-tt -o BatchMode=yes" ]] || exit 9\n'
        'exec bash -c "${5/ start / start --node-ip-address=$4 }"\n'
    )
    ssh.chmod(0o755)
    variables = environment | {"PATH": f"{tmp_path}:{environment['PATH']}", "ADDRESS": "127.0.0.2"}
    with socket.socket() as free:
        free.bind(("127.0.0.2", 0))
        variables["PORT"] = str(free.getsockname()[1])
    arguments = ["127.0.0.3", f"--workdir={tmp_path}", "--behaviour=ray"]
    subprocess.run([LAUNCHERS[3], *arguments], env=variables, check=True, timeout=120)
    assert sorted(json.loads((tmp_path / "nodes.json").read_text())) == ["127.0.0.2", "127.0.0.3"]
    mine = f":{variables['PORT']}".encode()
    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if mine in _command(path)]


def _command(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has just ended
        return b""


def test_ray_usage(environment) -> None:
    done = subprocess.run([LAUNCHERS[3], "host", "--x=y"], env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: ADDRESS=... launch/ray/run.sh")


JOBSET = ROOT / "launch/gke/jobset.py"
TPU_NODES = [
    "run1",
    "image",
    "--nodes=4",
    "--tpu=tpu-v6e-slice",
    "--topology=4x4",
    "--chips=4",
    "--claim=disk",
]


def test_pods_of_the_jobset_find_each_other_and_run_what_was_asked(monkeypatch) -> None:
    """The manifest's variables, with the index that Kubernetes adds, are what a pod joins the others by."""
    arguments = ["--workdir=/mnt/run/a", f"--note={NOTE}"]
    nodes = [argument.replace("--tpu=tpu-v6e-slice", "--gpu=nvidia-h100-80gb") for argument in TPU_NODES]
    nodes.remove("--topology=4x4")
    told = subprocess.run([JOBSET, *nodes, "--", *arguments], capture_output=True, text=True, check=True)
    (job,) = json.loads(told.stdout)["spec"]["replicatedJobs"]
    assert (job["template"]["spec"]["completions"], job["template"]["spec"]["completionMode"]) == (
        4,
        "Indexed",
    )
    (container,) = job["template"]["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["python", "-m", "experiments.run", *arguments]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 4}

    joined = []
    monkeypatch.setattr("jax.distributed.initialize", lambda *given: joined.append(given))
    variables = {entry["name"]: entry["value"] for entry in container["env"]}
    for index in range(4):
        assert distributed.initialize(environment=variables | {"JOB_COMPLETION_INDEX": str(index)}) == "gke"
    # The name that the JobSet controller gives its first pod: JOBSET-JOB-REPLICA-INDEX.SUBDOMAIN.
    assert joined == [(f"run1-{job['name']}-0-0.run1:8476", 4, index) for index in range(4)]


def test_tpu_pods_are_placed_on_their_slice() -> None:
    told = subprocess.run([JOBSET, *TPU_NODES, "--", "--workdir=/mnt/run/a"], capture_output=True, check=True)
    (job,) = json.loads(told.stdout)["spec"]["replicatedJobs"]
    pod = job["template"]["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v6e-slice",
        "cloud.google.com/gke-tpu-topology": "4x4",
    }
    assert pod["containers"][0]["resources"]["limits"] == {"google.com/tpu": 4}


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([*TPU_NODES, "--", "--workdir=/tmp/a"], "--workdir must be a folder in /mnt/run"),
        (["Run 1", *TPU_NODES[1:], "--", "--workdir=/mnt/run/a"], "the name 'Run 1' must be"),
        ([*TPU_NODES, "--nodes=0", "--", "--workdir=/mnt/run/a"], "--nodes is 0"),
        (["a", "b", "--nodes=1", "--tpu=x", "--chips=1", "--claim=c", "--"], "--topology belongs to --tpu"),
    ],
)
def test_a_jobset_that_cannot_work_is_refused(arguments, message) -> None:
    done = subprocess.run([JOBSET, *arguments], capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert message in done.stderr

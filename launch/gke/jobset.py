#!/usr/bin/env python3
"""One run over the nodes of a GKE node pool, as a JobSet: prints the manifest, for kubectl.

    launch/gke/jobset.py NAME IMAGE --nodes=4 --tpu=tpu-v6e-slice --topology=4x4 --chips=4 --claim=CLAIM \\
        -- --config=FILE --workdir=/mnt/run/DIR [--config.FIELD=VALUE ...] | kubectl apply -f -
    launch/gke/jobset.py NAME IMAGE --nodes=2 --gpu=nvidia-h100-80gb --chips=8 --claim=CLAIM -- ...

IMAGE is made by the Dockerfile beside this file. CLAIM is a PersistentVolumeClaim that all nodes may mount for writing
(Filestore, say); it is seen as /mnt/run. The cluster needs the JobSet controller. A pod that fails restarts all, and
the run goes on from what its work directory holds. Pods are privileged: bubblewrap mounts, and TPUs are devices of the
node.
Needs Python alone.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from typing import Any

JOB = "run"
_RESTARTS = 20


def main(argv: list[str]) -> None:
    print(json.dumps(manifest(*_parse(argv)), indent=2))


def manifest(options: argparse.Namespace, arguments: list[str]) -> dict[str, Any]:
    """The JobSet (jobset.x-k8s.io/v1alpha2) of one run; arguments: those of `experiments.run`."""
    job = {
        "parallelism": options.nodes,
        "completions": options.nodes,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "template": {"spec": _pod(options, arguments)},
    }
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {"name": options.name},
        "spec": {
            "failurePolicy": {"maxRestarts": _RESTARTS},
            "replicatedJobs": [{"name": JOB, "replicas": 1, "template": {"spec": job}}],
        },
    }


def _pod(options: argparse.Namespace, arguments: list[str]) -> dict[str, Any]:
    resource, selector = "nvidia.com/gpu", {"cloud.google.com/gke-accelerator": options.gpu}
    if options.tpu:
        resource = "google.com/tpu"
        selector = {
            "cloud.google.com/gke-tpu-accelerator": options.tpu,
            "cloud.google.com/gke-tpu-topology": options.topology,
        }
    # What `mlagent_jax.parallel.distributed` finds the other pods by; Kubernetes adds JOB_COMPLETION_INDEX.
    variables = {"JOBSET_NAME": options.name, "REPLICATED_JOB_NAME": JOB, "NNODES": str(options.nodes)}
    if options.gpu:
        variables["XLA_PYTHON_CLIENT_MEM_FRACTION"] = "0.95"
    container = {
        "name": JOB,
        "image": options.image,
        "command": ["python", "-m", "experiments.run", *arguments],
        "env": [{"name": name, "value": value} for name, value in variables.items()],
        "resources": {"limits": {resource: options.chips}},
        "securityContext": {"privileged": True},
        "volumeMounts": [
            {"name": "work", "mountPath": "/mnt/run"},
            {"name": "shared-memory", "mountPath": "/dev/shm"},
        ],
    }
    return {
        "restartPolicy": "Never",
        "nodeSelector": selector,
        "containers": [container],
        "volumes": [
            {"name": "work", "persistentVolumeClaim": {"claimName": options.claim}},
            {"name": "shared-memory", "emptyDir": {"medium": "Memory"}},
        ],
    }


def _parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    end = argv.index("--") if "--" in argv else len(argv)
    ours, arguments = argv[:end], argv[end + 1 :]
    parser = argparse.ArgumentParser(
        usage="launch/gke/jobset.py NAME IMAGE --nodes=N (--tpu=KIND --topology=AxB | --gpu=KIND) --chips=N "
        "--claim=CLAIM -- --config=FILE --workdir=/mnt/run/DIR [...]"
    )
    parser.add_argument("name", help="of the JobSet: lower-case letters, digits and '-'")
    parser.add_argument("image")
    parser.add_argument("--nodes", type=int, required=True, help="one process runs on each")
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--tpu", help="the node pool's cloud.google.com/gke-tpu-accelerator")
    kind.add_argument("--gpu", help="the node pool's cloud.google.com/gke-accelerator")
    parser.add_argument("--topology", help="of the TPU slice, such as 4x4")
    parser.add_argument("--chips", type=int, required=True, help="on each node")
    parser.add_argument("--claim", required=True, help="a PersistentVolumeClaim, seen as /mnt/run")
    options = parser.parse_args(ours)
    # A pod's host name has 63 letters; the job's name and two indices are added to this one.
    if not re.fullmatch(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", options.name):
        parser.error(f"the name {options.name!r} must be up to 40 lower-case letters, digits and '-'")
    if bool(options.tpu) != bool(options.topology):
        parser.error("--topology belongs to --tpu, which needs it")
    if options.nodes < 1 or options.chips < 1:
        parser.error(f"--nodes is {options.nodes} and --chips {options.chips}, but both must be at least 1")
    if not any(argument.startswith("--workdir=/mnt/run/") for argument in arguments):
        parser.error("after `--`, --workdir must be a folder in /mnt/run: anything else is lost with the pod")
    return options, arguments


if __name__ == "__main__":
    main(sys.argv[1:])

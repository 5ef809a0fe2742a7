#!/usr/bin/env bash
# One run whose scripts are executed on several machines: a Ray cluster of this one and HOSTS, for as long as it runs.
#
#   ADDRESS=10.0.0.1 launch/ray/run.sh HOST[,HOST...] --config=FILE --workdir=DIR [--config.FIELD=VALUE ...]
#
# ADDRESS: this machine's, as the hosts see it. Each is reached by ssh, without a password, and needs the repository,
# its environment (with the extra `ray`) and the tasks' data at the same paths, as on shared storage. Ray asks nobody
# for a password: whoever reaches its ports commands the cluster, so use a network of your own. A host that is lost
# costs the jobs that it ran; they run again elsewhere. PORT: of the cluster (default: 6379). PYTHON: the interpreter
# on all machines (default: .venv/bin/python).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

if (($# < 2)) || [[ $1 == -* || -z ${ADDRESS:-} ]]; then
  echo "usage: ADDRESS=... launch/ray/run.sh HOST[,HOST...] --config=FILE --workdir=DIR [--config.FIELD=VALUE ...]" >&2
  exit 2
fi
IFS=, read -ra hosts <<<"$1"
shift
python=${PYTHON:-.venv/bin/python} cluster=$ADDRESS:${PORT:-6379}
ray=("$python" -m ray.scripts.scripts)
export RAY_USAGE_STATS_ENABLED=${RAY_USAGE_STATS_ENABLED:-0} # it reports to its makers otherwise

# `--block` stays in the foreground and takes its node down when it ends: so does an ssh with a terminal that is cut.
nodes=()
trap 'kill "${nodes[@]}" 2>/dev/null; wait "${nodes[@]}" || true' EXIT
"${ray[@]}" start --head --node-ip-address="$ADDRESS" --port="${PORT:-6379}" --include-dashboard=false --block >&2 &
nodes+=($!)
until "${ray[@]}" status --address="$cluster" >/dev/null 2>&1; do
  kill -0 "${nodes[0]}" 2>/dev/null || { echo "Ray did not start at $cluster." >&2; exit 1; }
  sleep 1
done
for host in "${hosts[@]}"; do
  ssh -tt -o BatchMode=yes "$host" "cd $(printf '%q' "$PWD") && exec $(printf '%q ' "${ray[@]}") \
    start --address=$cluster --block" </dev/null >&2 &
  nodes+=($!)
done
"$python" -m experiments.run "$@" --config.sandbox.backend=ray --config.sandbox.ray_address="$cluster"

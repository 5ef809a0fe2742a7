#!/usr/bin/env bash
# One run as several processes on this machine: a stand-in for a cluster, on the CPU unless JAX_PLATFORMS says
# otherwise. The processes find each other as hosts do. If one fails, the others are stopped; the same command resumes.
#
#   launch/local/run.sh 2 --config=experiments/configs/quickstart.py --workdir=runs/two
#
# PYTHON: the interpreter (default: .venv/bin/python if there, else python3). PORT: of the first process.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

if [[ ! ${1:-} =~ ^[1-9][0-9]*$ ]]; then
  echo "usage: launch/local/run.sh NUMBER_OF_PROCESSES --config=FILE --workdir=DIR [--config.FIELD=VALUE ...]" >&2
  exit 2
fi
count=$1
shift

python=${PYTHON:-$([[ -x .venv/bin/python ]] && echo .venv/bin/python || echo python3)}
export JAX_PLATFORMS=${JAX_PLATFORMS:-cpu}
port=${PORT:-$("$python" -c 'import socket; s = socket.socket(); s.bind(("localhost", 0)); print(s.getsockname()[1])')}

processes=()
stop() {
  trap - INT TERM
  kill -TERM "${processes[@]}" 2>/dev/null || true
  wait
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

for ((id = 0; id < count; id++)); do
  "$python" -m experiments.run "$@" \
    --coordinator_address="localhost:$port" --num_processes="$count" --process_id="$id" &
  processes+=($!)
done
for ((ended = 0; ended < count; ended++)); do
  wait -n || { status=$?; echo "A process ended with status $status; stopping the others." >&2; exit "$status"; }
done

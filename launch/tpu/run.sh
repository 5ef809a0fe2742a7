#!/usr/bin/env bash
# One run on every worker of a TPU VM or pod slice; JAX asks the TPU who they are.
#
#   launch/tpu/run.sh NAME ZONE --config=FILE --workdir=DIR [--config.FIELD=VALUE ...]
#
# Copies the committed tree (HEAD) to ~/mlagent-jax on all workers, makes the environment there on the first call, and
# runs. DIR must be on storage that all workers see, such as a mounted Filestore share. The same command resumes.
# Needs gcloud, logged in and with a project set. PYTHON: of the workers (default: python3.11).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

if (($# < 3)) || [[ $1 == -* || $2 == -* ]]; then
  echo "usage: launch/tpu/run.sh NAME ZONE --config=FILE --workdir=DIR [--config.FIELD=VALUE ...]" >&2
  exit 2
fi
name=$1 zone=$2
shift 2

archive=$(mktemp --suffix=.tar.gz)
trap 'rm -f "$archive"' EXIT
git archive --format=tar.gz --output="$archive" HEAD
gcloud compute tpus tpu-vm scp "$archive" "$name:mlagent-jax.tar.gz" --zone="$zone" --worker=all

setup="mkdir -p mlagent-jax && tar -xzf mlagent-jax.tar.gz -C mlagent-jax && cd mlagent-jax"
setup+=" && { [ -x .venv/bin/python ] || ${PYTHON:-python3.11} -m venv .venv; }"
setup+=" && .venv/bin/pip install --quiet --editable . 'jax[tpu]'"
run=".venv/bin/python -m experiments.run $(printf '%q ' "$@")"
gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="$setup && $run"

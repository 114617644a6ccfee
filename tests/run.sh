#!/usr/bin/env bash
# Runs the tests: creates .venv if no environment is active, installs textvae once, runs pytest.
# Options are passed to pytest: bash tests/run.sh tests/test_train.py -k resume
# One process per core, at most four; -n 0 runs the tests in this one, as a debugger needs.

set -euo pipefail
. "$(dirname "$0")/../recipes/environment.sh"
ensure_environment test
cd "$root"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"  # the tensors are tiny: more threads are slower
exec python -m pytest -n auto --maxprocesses 4 --dist worksteal "$@"

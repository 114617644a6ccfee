#!/usr/bin/env bash
# Runs the tests: makes .venv where no environment is active, installs once, then pytest.
# Options go to pytest: bash tests/run.sh tests/test_train.py -k resume

set -euo pipefail
. "$(dirname "$0")/../recipes/environment.sh"
ensure_environment test
cd "$root"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"  # the tensors are tiny: threads only get in the way
exec python -m pytest "$@"

#!/usr/bin/env bash
# Penn Treebank at the references' size: language model, VAE and Skip-VAE, to the stopping rule.
#
#   bash recipes/ptb/run.sh --data FOLDER_WITH_PTB_FILES [--models "lm vae skip_vae"]
#        [--stage N] [--stop-stage M] [--out DIR] [any option of textvae train]
#
#   1 prepare   2 train   3 evaluate   4 compare   5 sample, reconstruct, interpolate
#
# Each model resumes where it was stopped. Hours on a CPU, minutes on a GPU.

set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
. "$here/../environment.sh"
. "$here/../stages.sh"

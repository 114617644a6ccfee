#!/usr/bin/env bash
# How to estimate the gradients of refinement, decided by training Skip-SA-VAE with two seeds and
# equal numbers of updates: the decoder's terms through the steps, all of them, one drawn, or none;
# and the steps' softmax whole or a quarter of it. About an hour on one core; a second start goes on.
#
#   bash recipes/toy/estimators.sh [further options of textvae train]

set -euo pipefail
here="$(dirname "$0")"
out="runs/estimators"

for seed in 0 1; do
  bash "$here/run.sh" --stop-stage 4 --samples 50 --out "$out/seed$seed" --train.seed "$seed" \
    --models "skip_sa_vae-none skip_sa_vae-sample skip_sa_vae-all skip_sa_vae-none-whole" "$@"
done

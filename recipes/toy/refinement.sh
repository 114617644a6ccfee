#!/usr/bin/env bash
# The effect of refinement and skip connections on z, with equal numbers of updates: VAE, Skip-VAE,
# SA-VAE, and Skip-SA-VAE with two seeds. As controls, the first two are also refined, but only at
# evaluation: refinement moves every mean, so the refined figures of a model that was trained with it
# say little without controls. Takes about an hour on two cores; run it again to resume.
#
#   bash recipes/toy/refinement.sh [options of textvae train]

set -euo pipefail
here="$(dirname "$0")"
. "$here/../environment.sh"
ensure_environment
out="runs/refinement"

for seed in 0 1; do
  python "$here/../../data/toy/prepare.py" --out "$out/seed$seed/corpus"  # the whole grammar
  bash "$here/run.sh" --stage 2 --stop-stage 3 --samples 50 --out "$out/seed$seed" --train.epochs 3 \
    --models "small-vae small-skip_vae small-sa_vae small-skip_sa_vae" --train.seed "$seed" "$@"
  for control in small-vae small-skip_vae; do
    textvae evaluate "$out/seed$seed/$control" --samples 50 --refine-steps 5
  done
done

for seed in 0 1; do
  runs="$out/seed$seed/small"
  printf '\n## Seed %s\n\n' "$seed"
  textvae compare "$runs-vae" "$runs-vae/metrics/test-refine5.json" "$runs-skip_vae" \
    "$runs-skip_vae/metrics/test-refine5.json" "$runs-sa_vae" "$runs-skip_sa_vae"
done

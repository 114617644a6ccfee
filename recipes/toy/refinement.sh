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

python "$here/../../data/toy/prepare.py" --out "$out/corpus"  # the whole grammar
textvae sweep --config "$here/base.yaml" --data.dir "$out/corpus" --out "$out" --seeds 2 --jobs 2 \
  --methods small-vae small-skip_vae small-sa_vae small-skip_sa_vae --samples 50 --no-report --train.epochs 3 "$@"

for seed in 0 1; do
  runs=()
  for model in vae skip_vae sa_vae skip_sa_vae; do
    run="$out/small-$model"
    if [ "$seed" -gt 0 ]; then run+="-seed-$seed"; fi
    runs+=("$run")
    case "$model" in vae | skip_vae)
      textvae evaluate "$run" --samples 50 --refine-steps 5
      runs+=("$run/metrics/test-refine5.json") ;;
    esac
  done
  printf '\n## Seed %s\n\n' "$seed"
  textvae compare "${runs[@]}"
done
